"""An address is never taken for a path: a folder named `s3:` was made without a word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cache.__main__ import main
from cache.files.atomic import write_atomic
from cache.files.lock import locked
from cache.files.place import is_address, local_path
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from configs.schema.fusion import FusionConfig


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["s3://lab/x", "S3://lab/x", "gs://lab/x", "s3:/lab/x", "https://lab/x", "hf://x"])
def test_addresses_are_no_paths(text: str) -> None:
    assert is_address(text)
    with pytest.raises(ValueError, match=f"{text} is no file or folder of this machine.*python -m cache pull"):
        local_path(text)


@pytest.mark.parametrize("text", ["features", "/data/s3/x", "./s3:/x", "C:/x", "a:b", "facebook/wav2vec2-base"])
def test_paths_are_no_addresses(text: str) -> None:
    assert local_path(text) == Path(text)


@pytest.mark.parametrize(
    ("kind", "setting", "key"),
    [
        (FeaturesConfig, "features_dir=s3://lab/x", "features_dir"),
        (FeaturesConfig, "corpus=s3://lab/metadata.csv", "corpus"),
        (FeaturesConfig, "encoders.audio=s3://lab/model", "encoders.audio"),
        (FusionConfig, "output_dir=gs://lab/x", "output_dir"),
    ],
)
def test_settings_refuse_them_by_their_key(kind: type[object], setting: str, key: str) -> None:
    Path("run.yaml").write_text("corpus: metadata.csv\n")
    with pytest.raises(ValueError, match=f"^{key}: [a-z0-9]+://lab"):
        load_config(kind, Path("run.yaml"), [setting])


def test_nothing_is_made_where_one_gets_through() -> None:
    for make in (lambda: write_atomic(Path("s3://lab/x/file"), "x"), lambda: locked(Path("s3://lab/x")).__enter__()):
        with pytest.raises(ValueError, match="is no file or folder of this machine"):
            make()
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", ["info", "verify", "repair", "gc"])
def test_commands_refuse_them_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "s3://lab/x"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "s3://lab/x is no file or folder of this machine" in said


def test_without_the_package_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert main(["pull", "s3://lab/x", "features"]) == 2
    assert capsys.readouterr().err == (
        "error: s3:// needs obstore, which is not installed; run: pip install --no-deps -r requirements-s3.txt\n"
    )
