"""A trained run on media files: the run's own numbers again, and what it says of files that it cannot answer for."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fuse
from cache.conditions import UNCHANGED
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.store import open_store
from cache.files.atomic import write_atomic
from configs.loader import dump_config
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.predict import ModelPlaces, PredictConfig
from extract.media.decode import decoders
from extract.run.plan import make_plan, prepare_stores
from extract.run.unit import load_tools, process_unit
from fuse import train
from fuse.predict.__main__ import run
from fuse.runs.checkpoint import read_checkpoint
from fuse.scores.predictions import read_predictions
from tests.tiny.corpus import pictures, tone, write_mp4, write_tiny_corpus, write_tiny_encoders

SPEAKERS, LABELS = ("1", "2", "21", "23"), ("happy", "sad")
HAPPY = 0


@dataclass(frozen=True)
class Site:
    """A corpus of mp4s, its features, and runs on them."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "fusion"

    def clip(self, clip_id: str) -> Path:
        corpus = read_corpus(self.root / "corpus/metadata.csv")
        return next(corpus.source(clip) for clip in corpus.clips if clip.clip_id == clip_id)

    def train(self, out: str, **changed: object) -> Path:
        settings = {
            "corpus": str(self.root / "corpus/metadata.csv"),
            "features_dir": str(self.root / "features"),
            "protocol": "holdout",
            "modalities": ("audio", "video"),
            "optim": Optim(epochs=2, lr=1e-3),
            "output_dir": str(self.root / out),
        }
        assert train.run(FusionConfig(**{**settings, **changed})) == 0  # type: ignore[arg-type]
        return self.root / out


def make_features(root: Path, **changed: object) -> None:
    """Stage one, in this process."""
    settings = {
        "corpus": str(root / "corpus/metadata.csv"),
        "features_dir": str(root / "features"),
        "encoders": Encoders(*(f"{root}/encoders/{name}" for name in ("wav2vec2", "videomae", "roberta"))),
        "asr": Asr(model=None),
        "conditions": (UNCHANGED,),
        "media": MediaSettings(size=32),
    }
    config = FeaturesConfig(**{**settings, **changed})  # type: ignore[arg-type]
    plan = make_plan(config)
    prepare_stores(plan)
    tools = load_tools(plan, set(plan.models), torch.device("cpu"))
    for unit in plan.units:
        process_unit(plan, unit, tools)
    write_atomic(plan.features_dir / "config.yaml", dump_config(config))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("predict")
    metadata = write_tiny_corpus(root / "corpus", SPEAKERS, LABELS, takes=2)
    said = [replace(clip, statement=f"Kids {clip.label}") for clip in read_corpus(metadata).clips]
    write_metadata(said, metadata)
    write_tiny_encoders(root / "encoders")
    make_features(root)
    made = Site(root)
    made.train("fusion")
    return made


def test_test_clips_get_the_probabilities_of_predictions_csv(site: Site) -> None:
    """From the file again, through decoder and encoders, and not from the cache."""
    known = read_predictions(site.run / "predictions.csv").select(split="test")
    frame = fuse.load(site.run).predict([site.clip(clip_id) for clip_id in known.clip_id])
    columns = [f"p_{label}" for label in read_checkpoint(site.run / "best_model.pth").label_names]
    np.testing.assert_allclose(frame[columns].to_numpy(), known.probabilities_NC, atol=1e-5)
    assert not frame["failure"].any()


def test_a_warm_model_starts_its_decoders_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prediction started processes of its own, which took 0.3 s, seven times as long as to decode the clip."""
    started = []

    def counted(*given: Any) -> Any:
        started.append(given)
        return decoders(*given)

    monkeypatch.setattr("fuse.predict.model.decoders", counted)
    model, clip = fuse.load(site.run), site.clip(read_predictions(site.run / "predictions.csv").clip_id[0])
    first, second = model.predict([clip]), model.predict([clip])
    assert first.equals(second)
    # A caller who does not want the rest leaves it there, and may come again.
    next(model.predictions([clip, clip]))
    assert model.predict([clip]).equals(first)
    assert len(started) == 1


def test_long_clips_get_the_probabilities_of_predictions_csv_too(site: Site, tmp_path: Path) -> None:
    """Sound in windows of half a second, and texts of more tokens than their encoder can place."""
    metadata = tmp_path / "metadata.csv"
    clips = read_corpus(site.root / "corpus/metadata.csv").clips
    said = {clip.clip_id: " ".join([f"Kids {clip.label} at the door"] * 20) for clip in clips}
    write_metadata([replace(clip, statement=said[clip.clip_id]) for clip in clips], metadata)
    made = {"corpus": str(metadata), "features_dir": str(tmp_path / "features")}
    windows = {"window_seconds": 0.5, "hop_seconds": 0.2}
    names = {"encoders": Encoders(f"{site.root}/encoders/wav2vec2", None, f"{site.root}/encoders/roberta")}
    make_features(site.root, **made, **windows, **names, corpus_root=str(site.root / "corpus"))
    store = open_store(tmp_path / "features/clean.zarr")
    assert all("windows" in one for path in store.arrays() for one in store.reasons(path))
    folder = site.train("windows", **made, modalities=("audio", "text"))
    known = read_predictions(folder / "predictions.csv").select(split="test")
    wanted = known.clip_id.tolist()
    frame = fuse.load(folder).predict([site.clip(one) for one in wanted], [said[one] for one in wanted])
    columns = [f"p_{label}" for label in read_checkpoint(folder / "best_model.pth").label_names]
    np.testing.assert_allclose(frame[columns].to_numpy(), known.probabilities_NC, atol=1e-5)


def test_of_a_long_text_a_fine_tuned_run_reads_the_part_that_it_was_trained_on(site: Site) -> None:
    encoder = fuse.load(site.train("long text", modalities=("text",))).encoder
    network, text = encoder.encoders["text"], "Kids are sad at the door " * 30
    windows = network.preparer.windows(text)
    assert windows is not None
    with torch.inference_mode():
        first_LD = network.encode_prepared(network.preparer.prepare_windows(windows.parts[:1]))[0]
    whole_D = encoder.row("text", text)
    encoder.checkpoint = replace(encoder.checkpoint, networks={"text": {}})
    assert encoder.checkpoint.fine_tuned
    np.testing.assert_allclose(encoder.row("text", text), first_LD.mean(0), atol=1e-6)
    assert not np.allclose(whole_D, first_LD.mean(0), atol=1e-4)


def test_contributions_add_up_to_what_the_clip_adds_to_nothing(site: Site) -> None:
    model = fuse.load(site.run)
    (one,) = model.predictions([site.clip("s23-happy-0")])
    (head,) = [read_checkpoint(site.run / "best_model.pth").head()]
    nothing = {name: torch.full((1, width), torch.nan) for name, width in head.widths.items()}
    with torch.inference_mode():
        empty = head(nothing).double().softmax(1)[0, model.label_names.index(one.label)]
    assert sum(one.contributions.values()) == pytest.approx(one.probabilities[one.label] - float(empty), abs=1e-9)
    assert set(one.contributions) == {"audio", "video"}


def test_silent_film_and_sound_alone_are_answered_and_say_what_is_missing(site: Site, tmp_path: Path) -> None:
    silent = write_mp4(tmp_path / "silent.mp4", None, pictures(12))
    heard = write_mp4(tmp_path / "heard.mp4", tone(0.8), None)
    film, sound = fuse.load(site.run).predictions([silent, heard])
    assert (film.missing, sound.missing) == ({"audio": "no sound"}, {"video": "no picture"})
    assert sum(film.probabilities.values()) == pytest.approx(1)
    assert set(sound.contributions) == {"audio"}


def test_a_bad_file_of_a_folder_is_one_line_and_the_others_are_predicted(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(site.clip("s23-sad-0"), tmp_path / "b.mp4")
    (tmp_path / "a.mp4").write_text("no film")
    (tmp_path / "._b.mp4").write_text("what a Mac leaves")
    assert run(PredictConfig(clip=str(tmp_path), run=str(site.run))) == 3
    lines = capsys.readouterr().out.splitlines()
    assert sum("failed:" in line for line in lines) == 1
    assert any(line.startswith(f"{tmp_path}/b.mp4: ") and "0." in line for line in lines)


def test_json_and_csv_hold_the_same_numbers(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(site.clip("s23-sad-0"))
    assert run(PredictConfig(clip=clip, run=str(site.run), json=True)) == 0
    (as_json,) = json.loads(capsys.readouterr().out)
    assert run(PredictConfig(clip=clip, run=str(site.run), csv=True)) == 0
    header, row = capsys.readouterr().out.splitlines()
    as_csv = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(as_csv["p_sad"]) == pytest.approx(as_json["probabilities"]["sad"])
    assert as_csv["label"] == as_json["label"]


def test_several_folds_and_seeds_answer_with_their_mean(site: Site) -> None:
    folder = site.train("folds", protocol="leave-one-speaker-out")
    clip = site.clip("s1-happy-1")
    leaves = sorted(folder.glob("fold-*/seed-*"))
    alone = [next(fuse.load(leaf).predictions([clip])).probabilities["happy"] for leaf in leaves]
    together = next(fuse.load(folder).predictions([clip])).probabilities["happy"]
    assert len(leaves) == 4
    assert together == pytest.approx(np.mean(alone))


def test_a_clip_unlike_the_training_clips_is_marked(site: Site, tmp_path: Path) -> None:
    known = [one.unfamiliar for one in fuse.load(site.run).predictions([site.clip("s21-happy-0")])]
    noise = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
    (strange,) = fuse.load(site.run).predictions([write_mp4(tmp_path / "noise.mp4", noise, None)])
    assert known == [()]
    assert strange.unfamiliar == ("audio",)


def test_an_adapted_run_knows_its_speakers_and_no_others(site: Site) -> None:
    model = fuse.load(site.train("adapted", standardise="speaker"))
    known = read_predictions(site.root / "adapted/predictions.csv").select(split="test")
    of_23 = known.clip_id.tolist().index("s23-sad-1")
    (one,) = model.predictions([site.clip("s23-sad-1")], speaker="23")
    np.testing.assert_allclose(list(one.probabilities.values()), known.probabilities_NC[of_23], atol=1e-5)
    with pytest.raises(ValueError, match="adapted to its speakers and needs speaker= one of 1, 2, 21, 23"):
        next(model.predictions([site.clip("s23-sad-1")]))
    with pytest.raises(ValueError, match="does not know speaker 5; give one of"):
        next(model.predictions([site.clip("s23-sad-1")], speaker="5"))


def test_a_run_without_a_recogniser_reads_statements(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site.train("text", modalities=("text",))
    known = read_predictions(folder / "predictions.csv").select(split="test")
    clips = [site.clip(clip_id) for clip_id in known.clip_id]
    labels = [clip_id.split("-")[1] for clip_id in known.clip_id]
    model = fuse.load(folder)
    answers = list(model.predictions(clips, [f"Kids {label}" for label in labels]))
    np.testing.assert_allclose(answers[0].probabilities["happy"], known.probabilities_NC[0, HAPPY], atol=1e-5)
    assert run(PredictConfig(clip=str(clips[0]), run=str(folder))) == 3
    assert "nothing to go by (text: no recogniser and no statement)" in capsys.readouterr().out
    assert run(PredictConfig(clip=str(site.root / "corpus/metadata.csv"), run=str(folder))) == 0


def test_a_table_is_scored_by_the_names_that_its_labels_are_given(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once `labels` was an unknown key here, and another corpus's names could not be told."""
    corpus = read_corpus(site.root / "corpus/metadata.csv")
    names = {"happy": "joy", "sad": "grief"}
    table = tmp_path / "metadata.csv"
    clips = [replace(clip, label=names[clip.label]) for clip in corpus.clips[:4]]
    write_metadata([*clips, replace(corpus.clips[4], label="bored")], table)
    settings = {"clip": str(table), "clip_root": str(corpus.root), "run": str(site.run)}
    assert run(PredictConfig(**settings)) == 0  # type: ignore[arg-type]
    assert "not scored: clips labelled bored, grief, joy, which the run does not know" in capsys.readouterr().out
    assert run(PredictConfig(**settings, labels={"joy": "happy", "grief": "sad", "bored": None})) == 0  # type: ignore[arg-type]
    *answers, last = capsys.readouterr().out.splitlines()
    likeliest = [line.split(": ")[1].split()[0] for line in answers if line.startswith(str(corpus.root))]
    right = sum(answer == clip.label for answer, clip in zip(likeliest, corpus.clips, strict=False))
    assert f"accuracy {100 * right / 4:.1f} %" in last
    assert "(4 clips" in last


def test_encoders_other_than_the_runs_own_are_refused(site: Site, tmp_path: Path) -> None:
    others = write_tiny_encoders(tmp_path, size=32)
    config = json.loads((others["audio"] / "config.json").read_text())
    (others["audio"] / "config.json").write_text(json.dumps({**config, "random_weights": False}))
    with pytest.raises(ValueError, match="trained on audio features that were made otherwise"):
        fuse.load(site.run, encoders={"audio": str(others["audio"])})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clip": None}, "clip is missing"),
        ({"clip": "nowhere.mp4"}, "no such file; name a media file, a folder of them or a metadata.csv"),
        ({"run": "nowhere"}, "no run in nowhere"),
        ({"features_dir": "nowhere"}, "there is no nowhere/config.yaml; set features_dir"),
        ({"encoders": ModelPlaces(audio="nowhere")}, "nowhere"),
        ({"labels": {"joy": "happy"}}, "has none; they are those of a metadata.csv"),
        ({"speaker": "1"}, "the run is not adapted to speakers"),
    ],
)
def test_bad_input_is_one_line(changed: dict[str, object], message: str, site: Site) -> None:
    given = {"clip": str(site.clip("s23-sad-0")), "run": str(site.run), **changed}
    with pytest.raises(ValueError, match=message) as caught:
        run(PredictConfig(**given))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_features_are_arrays_labels_and_speakers(site: Site) -> None:
    loaded = fuse.features(site.root / "features")
    widths = {name: values.shape for name, values in loaded.arrays.items()}
    assert widths == dict.fromkeys(("audio", "video", "text"), (16, 16))
    frame = loaded.to_pandas()
    assert frame["label"].tolist() == [loaded.label_names[label] for label in loaded.labels]
    assert frame["speaker"].tolist() == loaded.speakers.tolist()
    row, label = loaded.dataset()[3]
    assert row.shape == (48,)
    assert label == loaded.labels[3]
