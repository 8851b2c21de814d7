"""Parts of features folders given and taken, and what stage two brings of them; the object store is this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cache.care.verify import verify
from cache.features.store import open_store
from cache.remote import fetch, published
from cache.remote.live import Live
from cache.remote.mirror import complete_files
from cache.remote.parts import Part, parts_here
from cache.remote.published import Published
from configs.command.entry import main
from configs.loader import check
from configs.schema.features import FeaturesConfig
from configs.schema.fusion import FusionConfig
from configs.schema.studies import RobustnessConfig
from fuse.robustness.__main__ import run as tabulate
from fuse.train import run
from tests.cache.remote.memory import MemoryBucket
from tests.tiny.features import tiny_clips, write_tiny_features

ADDRESS = "s3://lab/features/one"
NOISE, DROP = "noise-white-10db", "drop-frames-30"
pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete, with the metadata beside it."""
    folder = tmp_path_factory.mktemp("features")
    write_tiny_features(folder, tiny_clips(), {NOISE: 3.0, DROP: 3.0})
    return folder


@pytest.fixture(scope="module")
def given(features: Path) -> dict[str, bytes]:
    """What they are at an object store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "Bucket", MemoryBucket.anew({}))
        Live(features, ADDRESS).give_all()
        return published.Bucket.everywhere[ADDRESS]  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(autouse=True)
def bucket(given: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> type[MemoryBucket]:
    """With the features at the address; it does not fail."""
    made = MemoryBucket.anew({ADDRESS: dict(given)})
    monkeypatch.setattr(published, "Bucket", made)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in complete_files(folder)}


def stored(folder: Path) -> set[str]:
    return {str(part) for part in parts_here(folder) if part.array and part.unit is None}


def config(features: Path, here: Path, **more: object) -> FusionConfig:
    tree = {"corpus": str(features / "metadata.csv"), "features_dir": str(here), "output_dir": str(here.parent / "run")}
    return check(FusionConfig, {**tree, "optim": {"epochs": 3}, "remote": ADDRESS, **more}, "test")


def test_names_of_parts_go_there_and_back() -> None:
    parts = [Part("clean.zarr"), Part("clean.zarr", "audio/é~%=x y"), Part("clean.zarr", "audio/a", unit=3)]
    parts += [Part(media="media/frames16-size224", unit=123456)]
    for part in parts:
        key = published._escaped(str(part))
        assert key.isascii()
        assert not set("%~ ") & set(key)
        assert Part.named(published._unescaped(key)) == part
    for name in ("clean.zarr/../x", "clean.zarr/audio", "/clean.zarr", "media/unit-00001", "clean.zarr/.x/y", "x"):
        with pytest.raises(ValueError, match="is no part of a features folder"):
            Part.named(name)


def test_what_was_given_is_taken_byte_for_byte(features: Path, tmp_path: Path, bucket: type[MemoryBucket]) -> None:
    there = Published(tmp_path / "copy", ADDRESS)
    for part in there.parts():
        there.take(part)
    assert contents(tmp_path / "copy") == contents(features)
    assert not verify(tmp_path / "copy").damage
    objects = dict(bucket.everywhere[ADDRESS])
    Live(tmp_path / "copy", ADDRESS).give_all()
    assert bucket.everywhere[ADDRESS] == objects


def test_a_part_that_came_in_half_is_pending(tmp_path: Path, bucket: type[MemoryBucket]) -> None:
    part = Part("clean.zarr", "audio/tiny", unit=1)
    there = Published(tmp_path / "copy", ADDRESS)
    there.take(Part("clean.zarr"))
    there.take(Part("clean.zarr", "audio/tiny"))
    last = (there.listing(part) or {})[part.seal]
    bucket.fault = staticmethod(lambda key: key.endswith(last.sha256))
    with pytest.raises(OSError, match="no answer"):
        there.take(part)
    assert not part.is_complete(tmp_path / "copy")
    assert open_store(tmp_path / "copy/clean.zarr").unit_is_pending("audio/tiny", 1)
    bucket.fault = staticmethod(lambda _: False)
    there.take(part)
    assert not open_store(tmp_path / "copy/clean.zarr").unit_is_pending("audio/tiny", 1)


def test_stage_two_brings_what_it_reads_and_nothing_else(
    features: Path, tmp_path: Path, bucket: type[MemoryBucket]
) -> None:
    here = tmp_path / "here"
    own = config(features, features, modalities=["audio"], output_dir=str(tmp_path / "own"), remote=None)
    assert run(own) == run(config(features, here, modalities=["audio"])) == 0
    assert stored(here) == {"clean.zarr/audio/tiny"}
    assert (tmp_path / "run/predictions.csv").read_bytes() == (tmp_path / "own/predictions.csv").read_bytes()
    # All of it is here now: nobody is asked.
    fetch._there.cache_clear()
    bucket.asked.clear()
    assert run(config(features, here, modalities=["audio"], overwrite=True)) == 0
    assert not bucket.asked
    # Other modalities and a condition come when they are asked for.
    more = config(features, here, modalities=["audio", "video"], condition=NOISE, output_dir=str(tmp_path / "more"))
    assert run(more) == 0
    assert stored(here) == {"clean.zarr/audio/tiny", "clean.zarr/video/tiny", f"{NOISE}.zarr/audio/tiny"}


def test_a_robustness_table_is_made_under_all_conditions_that_are_there(features: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    assert run(config(features, here, modalities=["audio", "video"])) == 0
    asked = {"runs": [str(tmp_path / "run")], "output_dir": str(tmp_path / "table"), "joint": False}
    assert tabulate(check(RobustnessConfig, asked, "test")) == 0
    assert {f"{NOISE}.zarr/audio/tiny", f"{DROP}.zarr/video/tiny"} <= stored(here)
    assert NOISE in (tmp_path / "table/robustness_table.csv").read_text()


def test_features_that_are_others_here_are_refused(features: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    write_tiny_features(here, tiny_clips(), made={"pooling": "last"}, widths={"audio": 12})
    with pytest.raises(ValueError, match=r"audio/tiny was made differently; what is there is never replaced"):
        run(config(features, here, modalities=["audio", "video"]))


def test_a_damaged_unit_does_not_go_up(features: Path, tmp_path: Path, bucket: type[MemoryBucket]) -> None:
    bucket.everywhere.clear()
    copy = tmp_path / "copy"
    shutil.copytree(features, copy)
    file = copy / "clean.zarr/audio/tiny/hidden/c/1/0/0"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"hidden: unit 1, layer 0 is damaged"):
        Live(copy, ADDRESS).give_all()
    assert not [key for key in bucket.everywhere[ADDRESS] if "audio/tiny/unit-00001" in key]


@pytest.mark.parametrize(
    "address", ["s3://me:secret@lab/x", "lab/x", "s3://lab", "gs://lab/x", "s3://lab/x?key=secret"]
)
def test_an_address_that_is_none_is_refused_without_saying_it(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("corpus: metadata.csv\n")
    for kind in (FusionConfig, FeaturesConfig):
        assert main(kind, lambda _: 0, "test", ["--config", str(tmp_path / "run.yaml"), f"remote={address}"]) == 2
        said = capsys.readouterr().err
        assert "remote: give s3://bucket/name" in said
        assert "secret" not in said
        assert said.count("\n") == 1


def test_retrying_what_is_never_replaced_is_refused() -> None:
    with pytest.raises(ValueError, match="retry_failed: what is at a remote is never replaced"):
        check(FeaturesConfig, {"corpus": "x.csv", "remote": ADDRESS, "retry_failed": True}, "test")
