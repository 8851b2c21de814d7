"""`python -m cache`: damage is named and nothing else is, repair undoes just that, features come in and go out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.__main__ import main
from cache.care.verify import Damage, verify
from cache.conditions import parse_joint
from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore, open_store
from cache.features.table import load_table
from cache.features.units import unit_count, unit_rows
from cache.files.hashes import sha256_of
from cache.files.lock import locked
from cache.media import Media, MediaStore, Source
from configs.loader import check
from configs.schema.fusion import FusionConfig
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features
from tests.tiny.places import SHARED

COUNT = 20
CLIPS = [Clip(f"c{n:02d}", f"c{n:02d}.wav", LABELS[n % 8], str(n % 5)) for n in range(COUNT)]
MEDIA = {"frames": 2, "size": 4}
FAILED, EMPTY = 9, range(16, 20)


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """What reaches the disk when is tested elsewhere; here waiting for it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def spec(modality: str, condition: str = "clean") -> ArraySpec:
    provenance = {"encoder": "tiny", "dtype": "float32", "condition": {"name": condition}, "layers": [2, 5]}
    extra = {"media": MEDIA, "random_weights": True} if modality == "video" else {}
    return ArraySpec(modality, "tiny", 2, 3, {**provenance, **extra})


def unit_of(array: ArraySpec, unit: int) -> UnitRows:
    """What is computed for a unit; the last one holds no video at all."""
    rows = UnitRows.empty(len(unit_rows(COUNT, unit)), array)
    for row, number in enumerate(unit_rows(COUNT, unit)):
        rows.source[row] = f"{number:064d}"
        if array.modality == "text":
            rows.columns["words"][row] = json.dumps([number])
            rows.columns["wer"][row] = number / 7
        if number == FAILED:
            rows.fail(row, "made to fail")
        elif array.modality == "video" and number in EMPTY:
            rows.absent(row, "the clip has no such stream")
        else:
            rng = np.random.default_rng([number, *array.path.encode()])
            rows.done(row, rng.standard_normal((2, 3)).astype(np.float32))
    return rows


def fill(features_dir: Path, condition: str, array: ArraySpec) -> None:
    """What stage one does: open, check, compute what is pending."""
    store = FeatureStore.create(features_dir / f"{condition}.zarr", [clip.clip_id for clip in CLIPS])
    store.require(array)
    for unit in range(unit_count(COUNT)):
        if store.unit_is_pending(array.path, unit):
            store.write_unit(array, unit, unit_of(array, unit))


def write_media(features_dir: Path, unit: int) -> None:
    media = MediaStore(features_dir, MEDIA)
    rng = np.random.default_rng(unit)
    clip = Media(rng.standard_normal(50).astype(np.float32), rng.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8))
    media.write_unit(unit, iter([(clip, Source("sha", 1, 2, 3, 4))]))


def compute(features_dir: Path) -> None:
    for modality in ("audio", "video", "text"):
        fill(features_dir, "clean", spec(modality))
    fill(features_dir, "noise-white-0db", spec("audio", "noise-white-0db"))
    for unit in range(2):
        if not MediaStore(features_dir, MEDIA).has_unit(unit):
            write_media(features_dir, unit)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact") / "features"
    compute(folder)
    return folder


@pytest.fixture
def features_dir(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "features"))


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != ".lock"}


def flip(path: Path, position: float = 0.5, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, int(position * len(content)))] ^= 1 << bit
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def where(damage: Damage) -> tuple[object, ...]:
    return damage.store, damage.array, damage.part, damage.unit, damage.layer


CLEAN, NOISY, FOLDER = "clean.zarr", "noise-white-0db.zarr", "media/frames2-size4"
# A file, how it is to be named, and the files that repair removes with it (None: it is written again).
Case = tuple[str, tuple[object, ...], str | None]
CHUNKS: list[Case] = [
    (f"{CLEAN}/audio/tiny/hidden/c/1/1/0", (CLEAN, "audio/tiny", "hidden", 1, 5), f"{CLEAN}/audio/tiny/*/c/1"),
    (f"{NOISY}/audio/tiny/hidden/c/2/0/0", (NOISY, "audio/tiny", "hidden", 2, 2), f"{NOISY}/audio/tiny/*/c/2"),
    (f"{CLEAN}/video/tiny/state/c/1", (CLEAN, "video/tiny", "state", 1, None), f"{CLEAN}/video/tiny/*/c/1"),
    (f"{CLEAN}/video/tiny/state/c/2", (CLEAN, "video/tiny", "state", 2, None), f"{CLEAN}/video/tiny/*/c/2"),
    (f"{CLEAN}/video/tiny/reason/c/2", (CLEAN, "video/tiny", "reason", 2, None), f"{CLEAN}/video/tiny/*/c/2"),
    (f"{CLEAN}/audio/tiny/source/c/0", (CLEAN, "audio/tiny", "source", 0, None), f"{CLEAN}/audio/tiny/*/c/0"),
    (f"{CLEAN}/text/tiny/words/c/1", (CLEAN, "text/tiny", "words", 1, None), f"{CLEAN}/text/tiny/*/c/1"),
    (f"{CLEAN}/text/tiny/wer/c/2", (CLEAN, "text/tiny", "wer", 2, None), f"{CLEAN}/text/tiny/*/c/2"),
    (f"{NOISY}/audio/tiny/checksum/c/0/0", (NOISY, "audio/tiny", "checksum", 0, None), f"{NOISY}/audio/tiny/*/c/0"),
    (f"{FOLDER}/unit-00001.h5", (FOLDER, "", "unit-00001.h5", 1, None), f"{FOLDER}/unit-00001."),
    (f"{FOLDER}/unit-00000.sources.json", (FOLDER, "", "unit-00000.h5", 0, None), f"{FOLDER}/unit-00000."),
]
METADATA: list[Case] = [
    (f"{CLEAN}/zarr.json", (CLEAN, "", "zarr.json", None, None), None),
    (f"{CLEAN}/clip_id/zarr.json", (CLEAN, "", "clip_id/zarr.json", None, None), None),
    (f"{CLEAN}/clip_id/c/0", (CLEAN, "", "clip_id", None, None), None),
    (f"{CLEAN}/text/zarr.json", (CLEAN, "text", "zarr.json", None, None), None),
    (f"{CLEAN}/text/tiny/zarr.json", (CLEAN, "text/tiny", "zarr.json", None, None), None),
    (f"{CLEAN}/text/tiny/words/zarr.json", (CLEAN, "text/tiny", "words/zarr.json", None, None), None),
    (f"{CLEAN}/text/tiny/state/zarr.json", (CLEAN, "text/tiny", "state/zarr.json", None, None), None),
    (f"{NOISY}/audio/tiny/hidden/zarr.json", (NOISY, "audio/tiny", "hidden/zarr.json", None, None), None),
    (f"{NOISY}/audio/tiny/checksum/zarr.json", (NOISY, "audio/tiny", "checksum/zarr.json", None, None), None),
]
CASES = CHUNKS + METADATA


def matches(name: str, pattern: str) -> bool:
    head, _, tail = pattern.partition("*")
    return name.startswith(head) and f"{tail}/" in f"{name[len(head) :]}/" if tail else name.startswith(head)


# Verify and repair


def test_intact_stores_are_well(features_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(features_dir)
    assert main(["verify", str(features_dir)]) == 0
    # Twice the clip ids; in 3 units twice audio and video with 2 layers and 3 columns, and text with 8 columns.
    assert capsys.readouterr().out == "all well: 77 chunks of 4 arrays, 2 media parts\n"
    assert main(["repair", str(features_dir)]) == 0
    assert capsys.readouterr().out == "nothing to repair\n"
    assert files(features_dir) == before


@pytest.mark.parametrize(
    ("file", "expected", "removed", "damage"),
    [
        *(pytest.param(*case, flip, id=f"flip {case[0]}") for case in CASES),
        # Deleting is less subtle: every other one.
        *(pytest.param(*case, Path.unlink, id=f"delete {case[0]}") for case in CASES[::2]),
    ],
)
def test_damage_is_named_and_nothing_else_and_repaired_alone(
    features_dir: Path, file: str, expected: tuple[object, ...], removed: str | None, damage: Callable[[Path], None]
) -> None:
    before = files(features_dir)
    damage(features_dir / file)
    assert [where(one) for one in verify(features_dir).damage] == [expected]
    assert main(["repair", str(features_dir)]) == 0
    left = before if removed is None else {name: data for name, data in before.items() if not matches(name, removed)}
    assert files(features_dir) == left
    compute(features_dir)
    assert not verify(features_dir).damage
    assert {n: d for n, d in files(features_dir).items() if "media" not in n} == {
        n: d for n, d in before.items() if "media" not in n
    }


@pytest.mark.parametrize("damage", [truncate, empty])
@pytest.mark.parametrize(("file", "expected", "removed"), CASES[1::6], ids=[case[0] for case in CASES[1::6]])
def test_a_shortened_file_is_named(
    features_dir: Path, file: str, expected: tuple[object, ...], removed: str | None, damage: Callable[[Path], None]
) -> None:
    del removed
    damage(features_dir / file)
    assert [where(one) for one in verify(features_dir).damage] == [expected]
    main(["repair", str(features_dir)])
    compute(features_dir)
    assert not verify(features_dir).damage


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_no_flipped_bit_goes_unnoticed(intact: Path, data: st.DataObject) -> None:
    """Any bit of any file: padding, fill values and white space of zarr.json included."""
    names = sorted(files(intact))
    name = data.draw(st.sampled_from(names))
    size = len(files(intact)[name])
    with damaged(intact, name, data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))):
        found = verify(intact).damage
    expected = {case[0]: case[1] for case in METADATA}.get(name)
    assert len(found) == 1
    assert expected is None or where(found[0]) == expected
    part = Path(found[0].store, found[0].array, found[0].part)
    assert name.startswith(str(part).removesuffix(".h5"))
    assert found[0].unit is None or f"{found[0].unit}" in name


@contextmanager
def damaged(folder: Path, name: str, byte: int, bit: int) -> Iterator[None]:
    path = folder / name
    content = path.read_bytes()
    try:
        path.write_bytes(content[:byte] + bytes([content[byte] ^ (1 << bit)]) + content[byte + 1 :])
        yield
    finally:
        path.write_bytes(content)


def test_damage_in_several_places_is_listed_and_repaired(
    features_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (features_dir / "config.yaml").write_text("encoders: {audio: hub/tiny, text: null}\n")
    for file, _, _ in (CHUNKS[0], CHUNKS[1], CHUNKS[6], METADATA[4], METADATA[5]):
        flip(features_dir / file)
    assert main(["verify", str(features_dir)]) == 1
    assert "clean.zarr audio/tiny hidden, unit 1 (clips 8 to 15), layer 5: it is not what was written" in (
        capsys.readouterr().out
    )
    assert main(["repair", str(features_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "clean.zarr text/tiny words/zarr.json: written again" in lines
    assert "3 units are pending again" in lines
    assert lines[-1] == (
        f'run: make features CONFIG={features_dir}/config.yaml SET="conditions=[clean,noise-white-0db] '
        'encoders.text=<tiny: its hub name or folder>"'
    )
    states = open_store(features_dir / CLEAN).states("audio/tiny")
    assert (states == State.PENDING).tolist() == [8 <= row < 16 for row in range(COUNT)]
    assert "3 units are pending" in str(verify(features_dir))


def test_an_array_that_nothing_describes_is_given_up(features_dir: Path) -> None:
    for name in ("zarr.json", "checksum/zarr.json"):
        empty(features_dir / CLEAN / "audio/tiny" / name)
    main(["repair", str(features_dir)])
    assert not (features_dir / CLEAN / "audio/tiny").exists()
    assert not verify(features_dir).damage
    compute(features_dir)
    assert not verify(features_dir).damage


def test_clip_ids_come_back_from_the_corpus(tmp_path: Path) -> None:
    """With a single store no other has them; stage one has, and knows that they are the same."""
    fill(tmp_path, "clean", spec("audio"))
    before = files(tmp_path)
    flip(tmp_path / CLEAN / "clip_id/c/0")
    with pytest.raises(ValueError, match=r"clean\.zarr is damaged; run: python -m cache repair"):
        open_store(tmp_path / CLEAN)
    main(["repair", str(tmp_path)])
    fill(tmp_path, "clean", spec("audio"))
    assert files(tmp_path) == before


def test_a_lost_root_is_not_taken_for_a_new_store(features_dir: Path) -> None:
    """Else the rows of one corpus would get the clip ids of another."""
    (features_dir / CLEAN / "zarr.json").unlink()
    with pytest.raises(ValueError, match=r"zarr\.json is lost; run: python -m cache repair"):
        FeatureStore.create(features_dir / CLEAN, ["another"])


def test_damaged_metadata_is_not_trained_on(features_dir: Path) -> None:
    path = features_dir / CLEAN / "audio/tiny/zarr.json"
    path.write_text(path.read_text().replace('"tiny"', '"tinz"'))
    with pytest.raises(ValueError, match=r"audio/tiny/zarr\.json is damaged; run: python -m cache repair"):
        load_table(features_dir, CLIPS, ("audio",))


def test_done_rows_must_be_finite(features_dir: Path) -> None:
    """A checksum says that bytes are as written, not that they made sense."""
    store, array = open_store(features_dir / CLEAN), spec("audio")
    rows = unit_of(array, 0)
    rows.hidden_BLD[3, 1, 2] = np.inf
    FeatureStore.create(store.path, store.clip_ids).write_unit(array, 0, rows)
    (damage,) = verify(features_dir).damage
    assert where(damage) == (CLEAN, "audio/tiny", "hidden", 0, 5)
    assert damage.problem == "clips are marked as done whose features are not finite"


def test_a_run_that_was_killed_early_is_no_damage(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / CLEAN, [clip.clip_id for clip in CLIPS])
    store.require(spec("audio"))
    store.group.require_group("video").require_group("tiny").create_array("source", shape=(COUNT,), dtype=str)
    store.group["audio/tiny/hidden"][:8] = 0  # type: ignore[index]
    report = verify(tmp_path)
    assert not report.damage
    assert report.pending_units == 3


def test_a_store_of_another_version_is_left_alone(features_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = features_dir / CLEAN / "audio/tiny/checksum/zarr.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "attributes": {}}))
    before = files(features_dir)
    assert main(["verify", str(features_dir)]) == 1
    assert main(["repair", str(features_dir)]) == 0
    assert "another version wrote it; delete the array" in capsys.readouterr().out
    assert files(features_dir) == before


@pytest.mark.parametrize("command", ["repair", "gc", "import"])
def test_commands_that_write_wait_for_nobody(
    features_dir: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = write_csv(tmp_path / "au.csv", "clip_id,a", "c01,1")
    arguments = {"import": ["import", str(csv), "--modality", "face", "--features-dir", str(features_dir)]}
    with locked(features_dir):
        assert main(arguments.get(command, [command, str(features_dir)])) == 2
    assert "another run (process" in capsys.readouterr().err


# Sources


def test_sources_are_hashed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = CLIPS[:3]
    for clip in clips:
        (tmp_path / clip.path).write_text(clip.clip_id)
    write_metadata(clips, tmp_path / "metadata.csv")
    store = FeatureStore.create(tmp_path / "features" / CLEAN, [clip.clip_id for clip in clips])
    array = spec("audio")
    store.require(array)
    rows = UnitRows.empty(3, array)
    for row, clip in enumerate(clips):
        rows.done(row, np.zeros((2, 3), np.float32))
        rows.source[row] = sha256_of(tmp_path / clip.path)
    store.write_unit(array, 0, rows)
    arguments = ["verify", str(tmp_path / "features"), "--sources", "--corpus", str(tmp_path / "metadata.csv")]
    assert main(arguments) == 0
    (tmp_path / "c01.wav").write_text("c11")
    (tmp_path / "c02.wav").unlink()
    capsys.readouterr()
    assert main(arguments) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("clean.zarr audio/tiny source, unit 0 (clips 1 to 1): the file of c01 is now ")
    assert "the file of c02 is not there" in second
    assert main(arguments[:3]) == 2
    assert capsys.readouterr().err.startswith("error: --sources needs --corpus")


def test_sources_behind_links_are_hashed_when_told(
    tmp_path: Path, features_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.wav").touch()
    (root / "c00.wav").symlink_to(tmp_path / "outside.wav")
    write_metadata([Clip("c00", "c00.wav", "happy", "1")], root / "metadata.csv")
    arguments = ["verify", str(features_dir), "--sources", "--corpus", str(root / "metadata.csv")]
    assert main(arguments) == 2
    assert "leads out of the corpus root" in capsys.readouterr().err
    assert main([*arguments, "--follow-links"]) in (0, 1)


# Info and garbage


def test_info_says_what_is_there(features_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(features_dir)]) == 0
    out = capsys.readouterr().out
    noisy = next(line for line in out.splitlines() if line.startswith("noise-white-0db"))
    assert noisy.split()[1:5] == ["audio/tiny", "2", "x", "3"]
    assert "19 done, 1 failed" in noisy
    assert "(layers 2, 5)" in noisy
    video = next(line for line in out.splitlines() if "video/tiny" in line)
    assert "15 done, 1 failed, 4 absent" in video
    assert "RANDOM WEIGHTS" in video
    assert "RANDOM WEIGHTS" not in noisy
    assert "2 stores, 4 arrays, 20 clips" in out
    assert "decoded media: 2 parts" in out


def test_garbage_is_listed_and_deleted_on_request(features_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(features_dir)
    assert main(["gc", str(features_dir), "--yes"]) == 0
    assert files(features_dir) == before
    rubbish = [
        *("config.yaml", "failures.csv"),  # these stay
        f"{CLEAN}/audio/tiny/hidden/c/0/0/0.0123.partial",
        ".config.yaml.xyz.part.yaml",
        "media/frames2-size4/.unit-00002.h5.abc.part.h5",
        "media/frames2-size4/unit-00007.h5",
        "media/frames0-size4/unit-00000.h5",
        f"{NOISY}/audio/tiny/hidden/c/1/0/0",
    ]
    for name in rubbish:
        (features_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (features_dir / name).write_bytes(b"x" * 1500)
    (features_dir / NOISY / "audio/tiny/state/c/1").unlink()
    fresh = FeatureStore.create(features_dir / "occlude-eyes.zarr", [clip.clip_id for clip in CLIPS])
    fresh.require(spec("video", "occlude-eyes"))
    capsys.readouterr()
    everything = files(features_dir)
    assert main(["gc", str(features_dir)]) == 0
    assert files(features_dir) == everything
    out = capsys.readouterr().out
    assert "1.5 kB  media/frames0-size4  (no store was made with these settings)" in out
    assert "occlude-eyes.zarr/video/tiny  (never written to)" in out
    assert all(name in out or Path(name).parent.name in out for name in rubbish[2:])
    assert "could be deleted: add --yes" in out
    main(["gc", str(features_dir), "--yes"])
    left = {name for name in files(features_dir) if not name.startswith("occlude-eyes.zarr")}
    assert left == {name for name in before if f"{NOISY}/audio/tiny" not in name or "/c/1" not in name} | {
        *("config.yaml", "failures.csv")
    }
    main(["gc", str(features_dir)])
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to delete"


# Export


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_exports_hold_everything_that_is_done(features_dir: Path, tmp_path: Path, suffix: str) -> None:
    to = tmp_path / f"out/features.{suffix}"
    assert main(["export", str(features_dir), "--to", str(to)]) == 0
    content = read_export(to)
    ids = [clip.clip_id for number, clip in enumerate(CLIPS) if number != FAILED]
    assert content["clip_id"].tolist() == ids
    store = open_store(features_dir / CLEAN)
    rows = [row for row in range(COUNT) if row != FAILED]
    for path in ("audio/tiny", "text/tiny", "video/tiny"):
        for place in range(2):
            np.testing.assert_array_equal(content[f"{path}/hidden"][:, place], store.read_layer(path, place)[rows])
        assert content[f"{path}/layers"].tolist() == [2, 5]
        assert content[f"{path}/state"].tolist() == store.states(path)[rows].tolist()
        assert json.loads(str(content[f"{path}/provenance"])) == store.provenance(path)
    assert content["text/tiny/words"].tolist() == [json.dumps([row]) for row in rows]
    np.testing.assert_array_equal(content["text/tiny/wer"], np.float32(np.array(rows) / 7))
    assert list(to.parent.iterdir()) == [to]


def read_export(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    found: dict[str, np.ndarray] = {}

    def keep(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            text = h5py.check_string_dtype(node.dtype)
            found[name] = np.asarray(node.asstr()[()]) if text else node[()]

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


def test_a_csv_comes_back_as_it_went(features_dir: Path, tmp_path: Path) -> None:
    to = tmp_path / "audio.csv"
    select = ["--modality", "audio", "--condition", "noise-white-0db", "--layers", "5", "2"]
    assert main(["export", str(features_dir), "--to", str(to), *select]) == 0
    assert to.read_text().splitlines()[0] == "clip_id,layer5_0,layer5_1,layer5_2,layer2_0,layer2_1,layer2_2"
    assert main(["import", str(to), "--modality", "again", "--features-dir", str(features_dir)]) == 0
    store, noisy = open_store(features_dir / CLEAN), open_store(features_dir / NOISY)
    expected = np.concatenate([noisy.read_layer("audio/tiny", place) for place in (1, 0)], axis=1)
    np.testing.assert_array_equal(store.read_layer("again/audio", 0), expected)
    assert store.states("again/audio")[FAILED] == State.ABSENT


EXPORT_ERRORS = [
    (["--to", "x.csv"], "a CSV holds one array"),
    (["--to", "x.mat"], "the file must end in .h5, .npz, .csv"),
    (["--to", "x.h5", "--modality", "face"], "has no face; it has audio/tiny, text/tiny, video/tiny"),
    (["--to", "x.h5", "--condition", "noise-white-5db"], "no feature store"),
    (["--to", "x.h5", "--condition", "noise"], "unknown condition 'noise'"),
    (["--to", "x.csv", "--modality", "audio", "--layers", "3"], "--layers 3: give all, last, or some of 2, 5"),
]


@pytest.mark.parametrize(("arguments", "expected"), EXPORT_ERRORS, ids=[e[1][:20] for e in EXPORT_ERRORS])
def test_what_cannot_be_exported_is_one_line(
    intact: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / word) if word.startswith("x.") else word for word in arguments]
    assert main(["export", str(intact), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("damage", "expected"), [(flip, "is damaged"), (None, "8 clips are pending")])
def test_pending_and_damaged_features_are_not_exported(
    features_dir: Path,
    tmp_path: Path,
    damage: Callable[[Path], None] | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if damage is None:
        FeatureStore.create(features_dir / CLEAN, [c.clip_id for c in CLIPS]).reset_unit("text/tiny", 1)
    else:
        damage(features_dir / CLEAN / "text/tiny/hidden/c/1/0/0")
    for suffix in ("h5", "npz"):
        assert main(["export", str(features_dir), "--to", str(tmp_path / f"x.{suffix}")]) == 2
        assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


# Import


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def bring(file: Path, features_dir: Path, *more: str) -> int:
    return main(["import", str(file), "--modality", "face", "--features-dir", str(features_dir), *more])


def test_imported_features_are_a_modality_like_any_other(
    features_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_csv(tmp_path / "au.csv", "AU1,clip_id,AU2,who", "1.5,c03,-2,x", "0.1,c07,1e-3,y", "1,zz,2,z")
    assert bring(file, features_dir, "--skip", "who") == 0
    out = capsys.readouterr().out
    assert "2 clips, 1 x 2 numbers each" in out
    assert "18 clips have no row: absent" in out
    assert "1 rows are of other clips and were left out, first zz" in out
    store = open_store(features_dir / CLEAN)
    assert store.provenance("face/au")["columns"] == ["AU1", "AU2"]
    assert store.provenance("face/au")["sha256"] == sha256_of(file)
    table = load_table(features_dir, CLIPS, ("audio", "face"), layers={"audio": 5})
    rows = [clip.clip_id for clip in table.clips]
    assert table.present["face"].sum() == 2
    np.testing.assert_array_equal(table.features["face"][rows.index("c07")], np.array([0.1, 1e-3], np.float32))
    assert not verify(features_dir).damage
    before = files(features_dir)
    assert bring(file, features_dir, "--skip", "who") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files(features_dir) == before


def test_another_file_under_the_same_name_is_refused(
    features_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(write_csv(tmp_path / "au.csv", "clip_id,a", "c03,1"), features_dir)
    before = files(features_dir)
    assert bring(write_csv(tmp_path / "au.csv", "clip_id,a", "c03,2"), features_dir) == 2
    assert "face/au was made differently: sha256 was " in capsys.readouterr().err
    assert files(features_dir) == before
    assert bring(tmp_path / "au.csv", features_dir, "--name", "other") == 0


def test_an_import_is_read_from_clean_unless_imported_for_the_condition(features_dir: Path, tmp_path: Path) -> None:
    lines = [f"{clip.clip_id},{number}" for number, clip in enumerate(CLIPS)]
    bring(write_csv(tmp_path / "au.csv", "clip_id,a", *lines), features_dir)

    def first(condition: str) -> float:
        table = load_table(features_dir, CLIPS, ("audio", "face"), parse_joint(condition))
        return float(table.features["face"].sum(axis=1)[1])

    assert first("noise-white-0db") == 1
    lines = [f"{clip.clip_id},{number + 0.5}" for number, clip in enumerate(CLIPS)]
    bring(write_csv(tmp_path / "au.csv", "clip_id,a", *lines), features_dir, "--condition", "noise-white-0db")
    assert first("noise-white-0db") == 1.5
    assert first("noise-white-0db+occlude-eyes") == 1.5
    assert first("clean") == 1


@pytest.mark.parametrize("layers", [None, 3])
def test_npz_files_may_hold_layers(features_dir: Path, tmp_path: Path, layers: int | None) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 4) if layers else (2, 4))
    np.savez(tmp_path / "big.npz", clip_id=np.array(["c05", "c02"]), features=values)
    assert bring(tmp_path / "big.npz", features_dir) == 0
    store = open_store(features_dir / CLEAN)
    assert store.shape("face/big") == (COUNT, layers or 1, 4)
    np.testing.assert_array_equal(
        store.read_layer("face/big", (layers or 1) - 1)[2], np.float32(values[1].reshape(-1, 4)[-1])
    )


def test_without_a_store_the_corpus_names_the_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_csv(tmp_path / "au.csv", "clip_id,a", "c03,1")
    assert bring(file, tmp_path / "new") == 2
    assert "has no clean.zarr to take the clips from; add --corpus metadata.csv" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    write_metadata(CLIPS, tmp_path / "metadata.csv")
    assert bring(file, tmp_path / "new", "--corpus", str(tmp_path / "metadata.csv")) == 0
    assert open_store(tmp_path / "new" / CLEAN).states("face/au")[3] == State.DONE


BAD_FILES = [
    (["clip,a", "c01,1"], "has no column clip_id"),
    (["clip_id,a", "c01,1", "c02,nan"], "line 3, column a: 'nan' is not a finite number"),
    (["clip_id,a,b", "c01,1,2", "c02,1,-inf"], "line 3, column b: '-inf' is not a finite number"),
    (["clip_id,a", "c01,1e39"], "line 2, column a: '1e39' is not a finite number"),
    (["clip_id,a", "c01,"], "line 2, column a: '' is not a finite number"),
    (["clip_id,a", "c01,1_0"], "line 2, column a: '1_0' is not"),
    (["clip_id,a,who", "c01,1,x", "c02,1,y"], "the whole column is text: leave it out with --skip who"),
    (["clip_id,a", "c01,1,2"], "line 2: 3 cells, the header has 2"),
    (["clip_id,a,a", "c01,1,2"], "column 'a' appears twice"),
    (["clip_id,a", "c01,1", "c01,2"], "clip_id 'c01' appears twice"),
    (["clip_id,a", ",1"], "clip_id '' is empty"),
    (["clip_id,a", "zz,1"], "has no row of any of the 20 clips: its first is 'zz', theirs is 'c00'"),
    (["clip_id", "c01"], "holds no features"),
    (["clip_id,a"], "holds no features"),
    ([], "has no column clip_id"),
]


@pytest.mark.parametrize(("lines", "expected"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_files_are_one_line(
    intact: Path, tmp_path: Path, lines: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(write_csv(tmp_path / "au.csv", *lines), intact) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (intact / CLEAN / "face").exists()


def test_bad_npz_files_are_one_line(intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, good = np.array(["c01", "c02"]), np.ones((2, 3))
    bad = np.where(np.arange(6).reshape(2, 3) == 4, np.nan, 1)
    for arrays, expected in (
        ({"clip_id": ids}, "it has no array features"),
        ({"clip_id": ids[:1], "features": good}, "clip_id must be strings (clips,)"),
        ({"clip_id": np.array([1, 2]), "features": good}, "clip_id must be strings"),
        ({"clip_id": ids, "features": bad}, "clip c02, layer 0, column 1: nan is not a finite number"),
        ({"clip_id": np.array(["c01", None], object), "features": good}, "is no npz file"),
    ):
        np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays)
        assert bring(tmp_path / "x.npz", intact) == 2
        assert expected in capsys.readouterr().err
    (tmp_path / "x.npz").write_text("no zip")
    assert bring(tmp_path / "x.npz", intact) == 2
    assert "is no npz file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--modality", "../x"], "--modality '../x' must match"),
        (["--modality", "clip_id"], "--modality 'clip_id'"),
        (["--name", "a/b"], "--name 'a/b' must match"),
        (["--condition", "noise"], "unknown condition 'noise'"),
        (["--skip", "zz"], "--skip zz"),
    ],
)
def test_bad_names_are_one_line(
    intact: Path, tmp_path: Path, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(write_csv(tmp_path / "au.csv", "clip_id,a", "c01,1"), intact, *more) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["foo"], ["verify"], ["export", "d"], ["verify", "d", "--what"]])
def test_a_wrong_command_line_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["info", "verify", "repair", "gc"])
def test_a_folder_without_stores_is_one_line_and_left_alone(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path / "nothing")]) == 2
    assert "holds no feature stores" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


# Stage two with what was imported


def test_stage_two_fuses_an_imported_modality(tmp_path: Path) -> None:
    clips = tiny_clips(per_class=1)
    metadata = write_tiny_features(tmp_path, clips)
    rng = np.random.default_rng(0)
    rows = [f"{c.clip_id},{LABELS.index(c.label) + rng.normal() / 10:.4f},{rng.normal():.4f}" for c in clips[1:]]
    assert bring(write_csv(tmp_path / "openface.csv", "clip_id,AU01,AU02", *rows), tmp_path) == 0
    tree = {"corpus": str(metadata), "features_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    config = check(FusionConfig, {**tree, "modalities": ["audio", "face"], "head": "lda"}, "test")
    assert train(config) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["test"]["clips"] == 16
    assert metrics["test"]["uar"] > 0.9
    predictions = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert predictions[1].endswith("audio+face")


@pytest.mark.skipif(not (SHARED / "ravdess/action_units.csv").is_file(), reason="no action units in $SHARED")
def test_published_action_units_become_the_modality_face(tmp_path: Path) -> None:
    lines = (SHARED / "ravdess/action_units.csv").read_text().splitlines()[1:]
    clips = [Clip(line.split(",")[0], f"{number}.wav", "sad", "1") for number, line in enumerate(lines)]
    write_metadata(clips, tmp_path / "metadata.csv")
    file = SHARED / "ravdess/action_units.csv"
    assert bring(file, tmp_path / "features", "--corpus", str(tmp_path / "metadata.csv")) == 0
    table = load_table(tmp_path / "features", clips, ("face",))
    assert table.features["face"].shape == (1440, 35)
    np.testing.assert_allclose(table.features["face"][0, :2], [0.0719388, 0.0616327])


def test_a_store_is_read_with_zarr_alone(features_dir: Path) -> None:
    """The lines of docs/store.md."""
    store: Any = zarr.open_group(features_dir / CLEAN, mode="r")
    done = store["audio/tiny/state"][:] == 1
    layer_5 = store["audio/tiny/hidden"][:, 1][done]
    clip_ids = store["clip_id"][:][done]
    assert dict(store["audio/tiny"].attrs)["layers"] == [2, 5]
    assert layer_5.shape == (19, 3)
    assert np.isfinite(layer_5).all()
    assert len(clip_ids) == 19


def test_temporary_folders_are_gone(features_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "temporary"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    flip(features_dir / CLEAN / "zarr.json")
    main(["repair", str(features_dir)])
    assert not list(own.iterdir())
