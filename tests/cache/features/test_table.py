"""Feature tables are joined by clip id; clean stands in for what a condition does not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.conditions import parse_joint
from cache.corpus.clips import Clip
from cache.corpus.ravdess import LABELS
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore
from cache.features.table import FeatureTable, load_table
from cache.features.units import unit_count, unit_rows

COUNT, LAYERS = 20, 3
WIDTHS = {"audio": 4, "video": 3, "text": 2}
CLIPS = tuple(Clip(f"c{n:02d}", f"c{n:02d}.mp4", LABELS[n % 8], str(n % 5)) for n in range(COUNT))
# What the conditions of the fixture changed.
CHANGED = {"noise-white-0db": ("audio", "text"), "occlude-block-50": ("video",), "clean": ("audio", "video", "text")}


def feature(clip_id: str, modality: str, condition: str) -> npt.NDArray[np.float32]:
    """(layers, width), drawn from what it should be found under."""
    rng = np.random.default_rng([*clip_id.encode(), *modality.encode(), *condition.encode()])
    drawn: npt.NDArray[np.float32] = rng.standard_normal((LAYERS, WIDTHS[modality])).astype(np.float32)
    return drawn


def write(
    features_dir: Path,
    condition: str,
    modality: str,
    /,
    clips: Sequence[Clip] = CLIPS,
    states: Mapping[str, State] | None = None,
    encoder: str = "tiny",
    **provenance: Any,
) -> FeatureStore:
    spec = ArraySpec(modality, encoder, LAYERS, WIDTHS[modality], {"encoder": encoder, **provenance})
    store = FeatureStore.create(features_dir / f"{condition}.zarr", [clip.clip_id for clip in clips])
    store.require(spec)
    for unit in range(unit_count(len(clips))):
        span = unit_rows(len(clips), unit)
        rows = UnitRows.empty(len(span), spec)
        for row, number in enumerate(span):
            clip_id = clips[number].clip_id
            state = (states or {}).get(clip_id, State.DONE)
            rows.state[row] = state
            if state == State.DONE:
                rows.done(row, feature(clip_id, modality, condition))
        if not (rows.state == State.PENDING).any():
            store.write_unit(spec, unit, rows)
    return store


def asr(modality: str) -> dict[str, Any]:
    return {"asr": {"model": "model.pt"}} if modality == "text" else {}


@pytest.fixture(scope="module")
def features_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for condition, modalities in CHANGED.items():
        for modality in modalities:
            write(folder, condition, modality, **asr(modality))
    return folder


def expected(clips: Sequence[Clip], modality: str, condition: str, layers: Sequence[int]) -> npt.NDArray[np.float64]:
    every = np.stack([feature(clip.clip_id, modality, condition)[list(layers)] for clip in clips]).astype(np.float64)
    mean: npt.NDArray[np.float64] = every.mean(axis=1)
    return mean


def assert_features(table: FeatureTable, modality: str, condition: str, layers: Sequence[int] = range(LAYERS)) -> None:
    wanted = expected(table.clips, modality, condition, layers)
    np.testing.assert_allclose(table.features[modality], wanted, atol=1e-6)
    assert table.features[modality].dtype == np.float32


# Joining


@given(st.permutations(range(COUNT)), st.integers(1, COUNT))
@settings(max_examples=8, deadline=None)
def test_rows_follow_the_corpus_that_asks(features_dir: Path, order: list[int], count: int) -> None:
    """Shuffled, and with fewer clips than were extracted."""
    clips = [CLIPS[number] for number in order[:count]]
    table = load_table(features_dir, clips, ("audio", "video"), label_names=LABELS)
    assert table.clips == tuple(clips)
    assert_features(table, "audio", "clean")
    assert_features(table, "video", "clean")
    assert table.labels.tolist() == [LABELS.index(clip.label) for clip in clips]
    assert table.speakers.tolist() == [clip.speaker for clip in clips]


def test_stores_of_different_order_are_joined_by_clip_id(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio")
    write(tmp_path, "clean", "video")
    write(tmp_path, "occlude-block-50", "video", CLIPS[::-1])
    table = load_table(tmp_path, CLIPS[3:7], ("audio", "video"), parse_joint("occlude-block-50"))
    assert_features(table, "audio", "clean")
    assert_features(table, "video", "occlude-block-50")


def test_take_and_rows_of(features_dir: Path) -> None:
    table = load_table(features_dir, CLIPS, ("audio", "text"))
    taken = table.take(["c07", "c02", "c19"])
    assert [clip.clip_id for clip in taken.clips] == ["c07", "c02", "c19"]
    assert_features(taken, "audio", "clean")
    assert taken.present["text"].tolist() == [True] * 3
    assert [table.clips[row].clip_id for row in table.rows_of(["c07", "c02", "c19"])] == ["c07", "c02", "c19"]
    assert table.rows_of([]) == ()


# Conditions


@pytest.mark.parametrize(
    ("condition", "sources"),
    [
        ("clean", {"audio": "clean", "video": "clean", "text": "clean"}),
        ("noise-white-0db", {"audio": "noise-white-0db", "video": "clean", "text": "noise-white-0db"}),
        ("occlude-block-50", {"audio": "clean", "video": "occlude-block-50", "text": "clean"}),
        (
            "noise-white-0db+occlude-block-50",
            {"audio": "noise-white-0db", "video": "occlude-block-50", "text": "noise-white-0db"},
        ),
        (
            "occlude-block-50+noise-white-0db",
            {"audio": "noise-white-0db", "video": "occlude-block-50", "text": "noise-white-0db"},
        ),
    ],
)
def test_what_a_condition_does_not_change_is_clean(
    features_dir: Path, condition: str, sources: Mapping[str, str]
) -> None:
    table = load_table(features_dir, CLIPS, ("audio", "video", "text"), parse_joint(condition))
    assert table.condition == condition
    for modality, source in sources.items():
        assert_features(table, modality, source)


def test_noise_does_not_reach_a_text_without_recogniser(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio")
    write(tmp_path, "clean", "text", asr={"model": None})
    write(tmp_path, "noise-white-0db", "audio")
    assert_features(load_table(tmp_path, CLIPS, ("audio", "text"), parse_joint("noise-white-0db")), "text", "clean")


@pytest.mark.parametrize(("encoder", "source"), [("statements", "clean"), ("heard", "noise-white-0db")])
def test_noise_reaches_the_text_of_the_encoder_that_read_a_recogniser(
    tmp_path: Path, encoder: str, source: str
) -> None:
    """One of two text encoders is enough for noise to reach a text: once it then had to reach the other's as well."""
    write(tmp_path, "clean", "text", encoder="statements", asr={"model": None})
    for condition in ("clean", "noise-white-0db"):
        write(tmp_path, condition, "text", encoder="heard", asr={"model": "model.pt"})
    table = load_table(tmp_path, CLIPS, ["text"], parse_joint("noise-white-0db"), encoders={"text": encoder})
    assert_features(table, "text", source)
    assert table.changed == (frozenset() if source == "clean" else {"text"})


# Layers


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [(0, [0]), (2, [2]), ("last", [2]), ("mean", [0, 1, 2]), ((1, 2), [1, 2]), ((1, 1), [1]), ((0, 2), [0, 1, 2])],
)
def test_layers(features_dir: Path, layers: Any, numbers: list[int]) -> None:
    assert_features(load_table(features_dir, CLIPS, ("audio",), layers=layers), "audio", "clean", numbers)


def test_layers_side_by_side(features_dir: Path) -> None:
    table = load_table(features_dir, CLIPS, ("audio",), layers="2+0")
    wanted = [expected(CLIPS, "audio", "clean", [layer]) for layer in (2, 0)]
    np.testing.assert_allclose(table.features["audio"], np.concatenate(wanted, axis=1), atol=1e-6)


def test_layers_by_modality(features_dir: Path) -> None:
    table = load_table(features_dir, CLIPS, ("audio", "video"), layers={"audio": 1})
    assert_features(table, "audio", "clean", [1])
    assert_features(table, "video", "clean", [0, 1, 2])


@pytest.mark.parametrize("layers", [3, (1, 3), (2, 1), -1, "middle", "1+3", "1+", "a+b", ""])
def test_layers_that_are_not_there(features_dir: Path, layers: Any) -> None:
    with pytest.raises(ValueError, match=r"layers=.*(has layers 0 to 2|give a number, last, mean, .* or 2\+3)"):
        load_table(features_dir, CLIPS, ("audio",), layers=layers)


KEPT = [2, 5, 6]


@pytest.mark.parametrize(
    ("layers", "places"),
    [(2, [0]), (6, [2]), ("last", [2]), ("mean", [0, 1, 2]), ((5, 6), [1, 2]), ({"audio": 5}, [1])],
)
def test_layers_are_named_as_in_the_model_where_some_were_kept(tmp_path: Path, layers: Any, places: list[int]) -> None:
    write(tmp_path, "clean", "audio", layers=KEPT)
    assert_features(load_table(tmp_path, CLIPS, ("audio",), layers=layers), "audio", "clean", places)


def test_kept_layers_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", layers=KEPT)
    table = load_table(tmp_path, CLIPS, ("audio",), layers="6+2")
    wanted = [expected(CLIPS, "audio", "clean", [place]) for place in (2, 0)]
    np.testing.assert_allclose(table.features["audio"], np.concatenate(wanted, axis=1), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 3, (2, 5), "2+3"])
def test_layers_that_were_not_kept_are_named(tmp_path: Path, layers: Any) -> None:
    write(tmp_path, "clean", "audio", layers=KEPT)
    with pytest.raises(ValueError, match=r"audio/tiny has layers 2, 5, 6; choose of these, .*layers=\{audio: 6\}"):
        load_table(tmp_path, CLIPS, ("audio",), layers=layers)


def test_a_modality_imported_for_both_parts_of_a_joint_condition_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WIDTHS, "face", 2)
    for condition in ("clean", "noise-white-0db", "occlude-block-50"):
        write(tmp_path, condition, "face")
    assert_features(load_table(tmp_path, CLIPS, ("face",), parse_joint("occlude-block-50")), "face", "occlude-block-50")
    with pytest.raises(ValueError, match="face was imported for noise-white-0db and occlude-block-50"):
        load_table(tmp_path, CLIPS, ("face",), parse_joint("noise-white-0db+occlude-block-50"))


# Features that were made differently


def differently(folder: Path, clean: dict[str, Any], noisy: dict[str, Any], **more: Any) -> FeatureTable:
    write(folder, "clean", "audio", **clean)
    write(folder, "noise-white-0db", "audio", **noisy)
    return load_table(folder, CLIPS, ("audio",), parse_joint("noise-white-0db"), **more)


MADE = {"dtype": "float32", "pooling": "mean", "weights_sha256": "a" * 64, "asr": {"model": "tiny.pt"}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "bfloat16"}, "dtype bfloat16, not float32"),
        ({"weights_sha256": "b" * 64}, "weights_sha256 bbbbbbbbbbbb, not aaaaaaaaaaaa"),
        ({"asr": {"model": "base.pt"}}, r"asr\.model base\.pt, not tiny\.pt"),
        ({"window": "clip"}, "window clip, not unset"),
        ({"encoder": "other"}, "encoder other, not tiny"),
        ({"layers": [0, 1, 5]}, r"layers \[0, 1, 5\], not \[0, 1, 2\]"),
    ],
    ids=str,
)
def test_a_condition_made_otherwise_than_clean_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """Equal widths mixed without a word: clean rows of one encoder or precision, noisy rows of another."""
    told = rf"noise-white-0db\.zarr: its audio features .* those of .*clean\.zarr \({said}\), .*; delete .*noise"
    with pytest.raises(ValueError, match=told) as caught:
        differently(tmp_path, MADE, {**MADE, **changed})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"condition": {"name": "noise-white-0db"}},
        {"noise": {"pool_sha256": "b" * 64}},
        {"libraries": {"torch": "2.9.1"}},
        {"asr": {"model": "tiny.pt", "libraries": {"torch": "2.9.1"}, "statements_sha256": "b" * 64}},
        {"device": "cuda"},
    ],
    ids=str,
)
def test_what_tells_conditions_apart_is_not_compared(tmp_path: Path, changed: dict[str, Any]) -> None:
    table = differently(tmp_path, {**MADE, "libraries": {"torch": "2.9.0"}}, {**MADE, **changed})
    assert table.origins["audio"].made["dtype"] == "float32"
    assert table.origins["audio"].store == str(tmp_path / "noise-white-0db.zarr")
    assert table.origins["audio"].encoder == "tiny"


def test_layers_that_are_not_used_may_differ(tmp_path: Path) -> None:
    table = differently(tmp_path, {"layers": [0, 1, 6]}, {"layers": KEPT}, layers="last")
    assert table.origins["audio"].made["layers"] == [6]


def test_an_encoder_that_clean_clips_lack_is_mixed_with_nothing(tmp_path: Path) -> None:
    table = differently(tmp_path, MADE, {**MADE, "encoder": "other"}, encoders={"audio": "other"})
    assert_features(table, "audio", "noise-white-0db")


# Rows that are no data


def test_failed_clips_are_left_out_of_every_modality(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", states={"c03": State.FAILED})
    write(tmp_path, "clean", "video", states={"c05": State.FAILED})
    table = load_table(tmp_path, CLIPS, ("audio", "video"))
    assert table.left_out == ("c03", "c05")
    assert len(table.clips) == COUNT - 2
    assert_features(table, "audio", "clean")
    assert_features(table, "video", "clean")
    assert load_table(tmp_path, CLIPS, ("audio",)).left_out == ("c03",)


def test_absent_modalities_are_marked_and_nan(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", states={"c03": State.ABSENT})
    write(tmp_path, "clean", "video")
    table = load_table(tmp_path, CLIPS, ("audio", "video"))
    assert len(table.clips) == COUNT
    assert table.present["audio"].tolist() == [number != 3 for number in range(COUNT)]
    assert table.present["video"].all()
    assert np.isnan(table.features["audio"][3]).all()


def test_pending_clips_are_an_error_with_the_command(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", states={"c03": State.PENDING})
    with pytest.raises(ValueError, match=r"audio/tiny: 8 clips are still pending; to finish, run: make features SET="):
        load_table(tmp_path, CLIPS, ("audio",))
    # Clips of finished units can be used.
    assert len(load_table(tmp_path, CLIPS[8:], ("audio",)).clips) == COUNT - 8


def test_all_failed_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", states={clip.clip_id: State.FAILED for clip in CLIPS})
    with pytest.raises(ValueError, match=r"every clip failed in audio; see failures\.csv"):
        load_table(tmp_path, CLIPS, ("audio",))


def test_damage_is_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio", layers=KEPT)
    (tmp_path / "clean.zarr/audio/tiny/hidden/c/1/2/0").unlink()
    with pytest.raises(ValueError, match=r"unit 1, layer 6 is damaged"):
        load_table(tmp_path, CLIPS, ("audio",))


@pytest.mark.parametrize(("random", "expected"), [({}, False), ({"random_weights": True}, True)])
def test_random_weights_are_passed_on(tmp_path: Path, random: dict[str, Any], expected: bool) -> None:
    write(tmp_path, "clean", "audio", **random)
    write(tmp_path, "clean", "video")
    assert load_table(tmp_path, CLIPS, ("video", "audio")).random_weights is expected


# What is missing, and the way out


def of_another_corpus(folder: Path) -> FeatureTable:
    return load_table(folder, [*CLIPS, Clip("c99", "c99.mp4", "sad", "1")], ("audio",))


MISSING: list[tuple[Callable[[Path], FeatureTable], str]] = [
    (lambda d: load_table(d / "none", CLIPS, ("audio",)), r"no feature store .*none/clean\.zarr; run: make features"),
    (
        lambda d: load_table(d, CLIPS, ("audio",), parse_joint("noise-white-5db")),
        r"no cached audio features for noise-white-5db in .*; "
        r'run: make features SET="features_dir=\S+ conditions=\[noise-white-5db\]"',
    ),
    (
        lambda d: load_table(d, CLIPS, ("face",)),
        r"no cached face features in .*clean\.zarr; .*python -m cache import FILE --modality face",
    ),
    (lambda d: load_table(d, CLIPS, ("audio",), encoders={"audio": "big"}), r"has no big; .* one of tiny"),
    (of_another_corpus, r"lacks 1 clips of the corpus, first c99"),
]


@pytest.mark.parametrize(("load", "expected"), MISSING, ids=range(len(MISSING)))
def test_what_is_missing_is_named(features_dir: Path, load: Callable[[Path], FeatureTable], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        load(features_dir)


def test_of_several_encoders_one_must_be_named(tmp_path: Path) -> None:
    write(tmp_path, "clean", "audio")
    write(tmp_path, "clean", "audio", encoder="other")
    with pytest.raises(ValueError, match=r"has several encoders; set encoders\.audio to one of other, tiny"):
        load_table(tmp_path, CLIPS, ("audio",))
    assert_features(load_table(tmp_path, CLIPS, ("audio",), encoders={"audio": "other"}), "audio", "clean")
