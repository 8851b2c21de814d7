"""An S3 server, and an empty bucket of it behind a proxy that fails when it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cache.remote import bucket as buckets
from tests.cache.remote.faulty import SECRET, FaultyProxy


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An empty bucket behind a proxy that does not fail yet; nothing is waited for."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    resource = boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{server}")
    resource.create_bucket(Bucket="lab")
    resource.Bucket("lab").objects.delete()
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", (0.01,) * 12)
    running = FaultyProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
    yield running
    running.shutdown()
    running.server_close()
