"""Checkpoints: what is written comes back, and what is not one of this version is one clear line."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.corpus.ravdess import LABELS
from cache.features.provenance import Origin
from fuse.model.fusion import FusionModel, ModelSettings, draw_weights
from fuse.model.heads.reliable import FITTED
from fuse.runs.checkpoint import Checkpoint, read_checkpoint, read_stage_two, write_checkpoint
from tests.tiny.checkpoint import tiny_checkpoint

NETWORKS = {"audio": {"weight": torch.arange(6.0).reshape(2, 3)}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tiny_checkpoint(), tmp_path / "best_model.pth")
    return tmp_path / "best_model.pth"


def test_everything_comes_back_as_it_was(path: Path) -> None:
    written, read = tiny_checkpoint(), read_stage_two(path)
    for name in {one.name for one in fields(Checkpoint)} - {"state", "speakers"}:
        assert getattr(read, name) == getattr(written, name), name
    assert read.modalities == ("video", "audio")
    for part in ("mean", "scale"):
        for name, values in getattr(written.speakers["1"], part).items():
            assert np.array_equal(getattr(read.speakers["1"], part)[name], values)
    rows = {"video": torch.randn(2, 3), "audio": torch.randn(2, 4)}
    with torch.inference_mode():
        assert torch.equal(read.head()(rows), written.head()(rows))


def test_a_fine_tuned_run_is_read_by_the_same_reader_and_is_none_of_stage_two(path: Path) -> None:
    write_checkpoint(replace(tiny_checkpoint(), networks=NETWORKS, audio_seconds=3.0), path)
    read = read_checkpoint(path)
    assert (read.fine_tuned, read.audio_seconds) == (True, 3.0)
    assert torch.equal(read.networks["audio"]["weight"], NETWORKS["audio"]["weight"])
    with pytest.raises(ValueError, match=r"was fine-tuned with encoders of its own, .*; name the run of stage two"):
        read_stage_two(path)


def test_a_reliable_fusion_of_before_plain_distances_weighs_its_votes_as_it_did(path: Path) -> None:
    settings = ModelSettings("late-reliable", {"video": 3, "audio": 4}, len(LABELS))
    weights = draw_weights(settings, 0)
    for name in settings.widths:
        weights[f"{name}{FITTED}rest"] = torch.tensor(0.3)
    model = FusionModel(settings, weights).eval()
    state = {key: one for key, one in model.state_dict().items() if not key.endswith("plain")}
    assert len(state) == len(model.state_dict()) - 2
    write_checkpoint(replace(tiny_checkpoint(), settings=settings, state=state), path)
    rows = {"video": torch.randn(2, 3), "audio": torch.randn(2, 4)}
    with torch.inference_mode():
        assert torch.equal(read_checkpoint(path).head()(rows), model(rows))


def without(kept: dict[str, Any]) -> Any:
    del kept["fold"], kept["speakers"]
    return kept


def with_more(kept: dict[str, Any]) -> Any:
    return {**kept, "optimiser": 1}


def with_other_settings(kept: dict[str, Any]) -> Any:
    kept["settings"]["hidden"] = 6
    return kept


def with_another_label(kept: dict[str, Any]) -> Any:
    return {**kept, "label_names": (*kept["label_names"], "bored")}


def with_unknown_settings(kept: dict[str, Any]) -> Any:
    kept["settings"]["depth"] = 6
    return kept


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (without, "lacks fold, speakers: it was written by another version; train the run again"),
        (with_more, "has unknown optimiser: it was written by another version; train the run again"),
        (with_other_settings, "weights that do not fit its settings"),
        (with_another_label, "9 labels for 8 classes"),
        (with_unknown_settings, "unexpected keyword argument 'depth'"),
        (lambda kept: list(kept), "holds no record of a run"),
    ],
)
def test_other_keys_are_one_clear_line(path: Path, changed: Any, message: str) -> None:
    """A missing key was a KeyError where it was first used, an unknown one went unnoticed."""
    torch.save(changed(torch.load(path, weights_only=True)), path)
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", pickle.dumps({"state": {}})])
def test_a_file_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    """Text or an empty file in place of a checkpoint ended in a traceback of pickle."""
    path = tmp_path / "best_model.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"best_model\.pth is no checkpoint .*; train the run again"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("sad", "bored"), "missing: neutral, calm, happy, angry, fearful, disgust, surprised; new: bored"),
        (LABELS[::-1], "the order: label 1 is neutral in one and surprised in the other"),
    ],
)
def test_a_corpus_with_other_labels_is_refused_with_the_difference(labels: tuple[str, ...], said: str) -> None:
    """A prediction is a number: with other labels it meant another emotion, and nobody asked."""
    kept = tiny_checkpoint()
    kept.refuse_other_labels(LABELS, Path("runs/one"))
    with pytest.raises(ValueError, match=f"not those of the run runs/one \\({said}\\); name a corpus with the same"):
        kept.refuse_other_labels(labels, Path("runs/one"))


def test_other_features_than_it_was_trained_on_are_refused_with_the_difference() -> None:
    kept = tiny_checkpoint()
    same = {name: Origin(f"{name}.zarr", "any", made) for name, made in kept.features.items()}
    kept.refuse_other_features(same, Path("runs/one"))
    other = {**same, "audio": Origin("noise.zarr", "any", {**kept.features["audio"], "dtype": "bfloat16"})}
    told = r"noise\.zarr: its audio features .* of the run runs/one \(dtype bfloat16, not float32\); set features_dir"
    with pytest.raises(ValueError, match=told):
        kept.refuse_other_features(other, Path("runs/one"))
