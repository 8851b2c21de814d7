"""The four commands on real voices, true sizes and the real Whisper encoder, where the inputs are present."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.corpus.clips import Corpus, read_corpus, write_metadata
from cache.features.store import open_store
from cache.features.table import load_table
from configs.schema.corpora import CorpusConfig
from configs.schema.demo import RandomEncodersConfig
from configs.schema.protocols import load_protocol
from extract.corpora.command import run as write_corpus_metadata
from extract.corpora.synthetic.encoders import write_random_encoders
from tests.tiny.places import ROOT, SHARED, needs_audio, needs_video, needs_whisper


def command(module: str, config: str, *overrides: str, ranks: int = 2) -> str:
    """Run a stage exactly as make does; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": str(ranks)}
    arguments = [sys.executable, "-m", module, "--config", str(ROOT / "configs" / config), *overrides]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def corpus_of(kind: str, folder: Path, keep: slice | None = None) -> Corpus:
    """metadata.csv for the real clips of one kind, or for some of them."""
    root = SHARED / "ravdess" / kind
    write_corpus_metadata(CorpusConfig(root=str(root), out=str(folder / "metadata.csv")))
    corpus = read_corpus(folder / "metadata.csv", root)
    if keep is not None:
        write_metadata(corpus.clips[keep], folder / "metadata.csv")
    return read_corpus(folder / "metadata.csv", root)


@needs_audio
@needs_whisper
def test_whisper_features_and_transcripts_of_real_clips(tmp_path: Path) -> None:
    corpus = corpus_of("audio", tmp_path, slice(0, None, 240))
    text = write_random_encoders(RandomEncodersConfig(out=str(tmp_path / "encoders")))["text"]
    command(
        "extract",
        "ravdess/features-whisper.yaml",
        f"corpus={tmp_path / 'metadata.csv'}",
        f"corpus_root={corpus.root}",
        f"features_dir={tmp_path / 'features'}",
        f"encoders.audio={SHARED / 'models/whisper-tiny.en-encoder'}",
        f"encoders.text={text}",
        f"asr.model={SHARED / 'models/whisper-tiny.en-ravdess/model.pt'}",
    )
    store = open_store(tmp_path / "features" / "clean.zarr")
    assert store.column("text/roberta", "wer") == [0.0] * len(corpus.clips)
    words = json.loads(store.column("text/roberta", "words")[0])
    assert [word["text"].strip(".").lower() for word in words] == corpus.clips[0].statement.lower().split()
    for row in (0, len(corpus.clips) - 1):
        expected = plain_whisper(corpus.source(corpus.clips[row]))
        stored = np.stack([store.read_layer("audio/whisper-tiny.en-encoder", layer)[row] for layer in range(5)])
        assert np.all(np.abs(stored - expected) <= 1e-5 * np.maximum(1, np.abs(expected)))


def plain_whisper(path: Path) -> np.ndarray:
    """What anyone would write with transformers for one clip."""
    from transformers import AutoFeatureExtractor, WhisperModel

    folder = SHARED / "models/whisper-tiny.en-encoder"
    encoder = WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    samples, rate = soundfile.read(path, dtype="float32")
    features = AutoFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        states = encoder(features.input_features, output_hidden_states=True).hidden_states
    own = -(-len(samples) // 320)
    return np.stack([state[0, :own].mean(0).numpy() for state in states])


@needs_video
@pytest.mark.slow
def test_all_four_commands_on_240_real_voices(tmp_path: Path) -> None:
    corpus = corpus_of("video", tmp_path)
    encoders = write_random_encoders(RandomEncodersConfig(out=str(tmp_path / "encoders")))
    paths = [f"corpus={tmp_path / 'metadata.csv'}", f"features_dir={tmp_path / 'features'}"]
    names = [f"encoders.{modality}={folder}" for modality, folder in encoders.items()]
    command("extract", "ravdess/features.yaml", *paths, *names, f"corpus_root={corpus.root}", "asr.model=null")
    command("fuse.train", "ravdess/fusion.yaml", *paths, f"output_dir={tmp_path / 'fusion'}")
    init = [f"init={tmp_path / 'fusion'}", f"output_dir={tmp_path / 'finetune'}", "optim.epochs=1"]
    command("fuse.finetune", "ravdess/finetune.yaml", *paths, *names, *init)
    command(
        "fuse.robustness",
        "ravdess/robustness.yaml",
        f"runs=[{tmp_path / 'fusion'}]",
        f"output_dir={tmp_path / 'table'}",
    )
    with (tmp_path / "table" / "robustness_table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 + 8 + 5 + 8 + 5 + 4 + 5
    assert all(row["clips"] == "60" for row in rows)
    assert json.loads((tmp_path / "finetune" / "metrics.json").read_text())["test"]["clips"] == 60


@needs_audio
@needs_whisper
@pytest.mark.slow
def test_head_comes_within_a_point_of_logistic_regression(tmp_path: Path) -> None:
    """1440 real clips, luna5: the head gives some speakers to validation, the regression trains on all but test."""
    corpus = corpus_of("audio", tmp_path)
    paths = [f"corpus={tmp_path / 'metadata.csv'}", f"features_dir={tmp_path / 'features'}"]
    encoder = f"encoders.audio={SHARED / 'models/whisper-tiny.en-encoder'}"
    command(
        "extract", "ravdess/features-whisper.yaml", *paths, f"corpus_root={corpus.root}", encoder, "encoders.text=null"
    )
    command("fuse.train", "ravdess/fusion-whisper.yaml", *paths, f"output_dir={tmp_path / 'run'}")
    head = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["uar"]
    regression = logistic_regression_uar(tmp_path / "features", corpus)
    assert regression == pytest.approx(0.74, abs=0.01)
    assert head > regression - 0.01


def logistic_regression_uar(features_dir: Path, corpus: Corpus) -> float:
    """Pooled UAR over luna5 of hidden state 3, trained on every speaker that is not tested."""
    table = load_table(features_dir, corpus.clips, ("audio",), layers=3, label_names=corpus.labels)
    predicted = np.empty_like(table.labels)
    for fold in load_protocol("luna5").folds(table.clips):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        known = [clip_id for part in ("train", "validation") for clip_id in fold.clip_ids(part, table.clips)]
        train, test = list(table.rows_of(known)), list(table.rows_of(fold.clip_ids("test", table.clips)))
        model.fit(table.features["audio"][train], table.labels[train])
        predicted[test] = model.predict(table.features["audio"][test])
    return float(balanced_accuracy_score(table.labels, predicted))


@needs_audio
@needs_whisper
@pytest.mark.slow
def test_a_reliable_fusion_is_not_dragged_below_the_face_by_babble_that_it_never_met(tmp_path: Path) -> None:
    """Heard as training draws them, and in babble, which it does not. All clips: of a fifth it learns too little."""
    corpus = corpus_of("audio", tmp_path)
    paths = [f"corpus={tmp_path / 'metadata.csv'}", f"features_dir={tmp_path / 'features'}"]
    noises = ("noise-white-10db", "noise-white-0db", "reverb-room-600ms", "noise-babble-0db")
    command(
        "extract",
        "ravdess/features-whisper.yaml",
        *paths,
        f"corpus_root={corpus.root}",
        f"encoders.audio={SHARED / 'models/whisper-tiny.en-encoder'}",
        "encoders.text=null",
        "asr.model=null",
        "whisper.window=clip",
        f"conditions=[{','.join(noises)}]",
    )
    imported = [sys.executable, "-m", "cache", "import", str(SHARED / "ravdess/action_units.csv")]
    where = ["--modality", "face", "--features-dir", str(tmp_path / "features")]
    subprocess.run([*imported, *where], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    for name, head in (("reliable", "late-reliable"), ("plain", "lda")):
        out = f"output_dir={tmp_path / name}"
        command("fuse.train", "ravdess/fusion-reliable.yaml", *paths, f"head={head}", out)
    command(
        "fuse.robustness",
        "ravdess/robustness-whisper.yaml",
        f"runs=[{tmp_path / 'reliable'},{tmp_path / 'plain'}]",
        f"conditions=[{','.join(noises)}]",
        "modalities=[[audio,face],[audio],[face]]",
        f"output_dir={tmp_path / 'table'}",
    )
    with (tmp_path / "table" / "robustness_table.csv").open() as file:
        rows = {(row["run"], row["modalities"], row["condition"]): row["uar"] for row in csv.DictReader(file)}
    uar = {key: float(value) for key, value in rows.items() if value}
    assert uar["reliable", "audio+face", "clean"] >= uar["plain", "audio+face", "clean"] - 0.005
    # What the face scores does not depend on the sound, and the table may say so by leaving it out.
    face = uar["reliable", "face", "clean"]
    for noise in noises:
        assert uar["reliable", "audio+face", noise] >= max(uar["reliable", "audio", noise], face) - 0.01
    # Where the plain head fails.
    assert uar["plain", "audio+face", noises[-1]] < face - 0.05
