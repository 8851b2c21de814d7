"""Features of a fine-tuned encoder, end to end: its export goes into stage one, and heads are trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.conditions import UNCHANGED, parse_joint
from cache.corpus.clips import read_corpus
from cache.features.store import open_store
from cache.features.table import load_table
from cache.remote import published
from cache.remote.live import Live
from configs.command.stop import StopRequest
from configs.loader import check
from configs.schema.finetune import FinetuneOptim
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.sweep import SweepConfig
from fuse import train
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.rank import finetune
from fuse.finetune.training.rows import rows_of
from fuse.runs.folder import STAGING
from fuse.scores.predictions import read_predictions
from fuse.sweep.__main__ import run as sweep
from tests.cache.remote.memory import MemoryBucket
from tests.fuse.finetune.site import ALONE, CPU, NOISE, config_of, encoders_of, stage_one

TUNED_ON = ["1", "2", "21"]


@pytest.mark.usefixtures("alone", "all_undrawn")
def test_a_tuned_encoder_goes_through_all_stages_and_is_never_tested_on_who_it_knows(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the two ends were tested, each with a record that the test had made up; the sweep's end not at all."""
    # So that the weights are not those of the start.
    monkeypatch.setattr("fuse.finetune.training.loop._better", lambda *_: True)
    optim = FinetuneOptim(epochs=1, batch_size=2, lr=1e-2, encoder_lr_scale=1.0)
    config = config_of(corpus, audio_seconds=None, optim=optim, output_dir=str(tmp_path / "tuned"))
    plan = plan_finetune(config)
    model, loaders = load(plan, CPU)
    finetune(plan, model, loaders, ALONE, StopRequest())
    exported = tmp_path / "tuned" / STAGING / "export/audio"

    features = tmp_path / "features"
    stage_one(corpus, 8, parse_joint(NOISE), replace(encoders_of(corpus), audio=str(exported)), features)
    assert open_store(features / "clean.zarr").provenance("audio/audio")["tuned_on"] == TUNED_ON
    clips = read_corpus(corpus / "metadata.csv").clips
    cached = load_table(features, clips, ("audio",), UNCHANGED, "mean", label_names=("happy", "sad"))
    test = [place for place, clip in enumerate(cached.clips) if clip.speaker == "23"]
    own = rows_of(model, loaders, clips_of(plan, "test"), ALONE)["audio"]
    np.testing.assert_allclose(cached.features["audio"][test], own, atol=1e-4)

    shared: dict[str, Any] = {"corpus": str(corpus / "metadata.csv"), "features_dir": str(features)}
    run = FusionConfig(**shared, protocol="holdout", optim=Optim(epochs=2), output_dir=str(tmp_path / "fusion"))
    assert train.run(run) == 0
    predictions = read_predictions(tmp_path / "fusion/predictions.csv")
    assert set(predictions.select(split="test").speaker) == {"23"}
    message = r"would test on speakers that the audio encoder was fine-tuned on \(1\)"
    with pytest.raises(ValueError, match=message):
        train.run(replace(run, protocol="leave-one-speaker-out", output_dir=str(tmp_path / "other")))
    told = {"run": {**shared, "protocol": "leave-one-speaker-out"}, "grid": {"optim.lr": [1e-3, 1e-2]}}
    with pytest.raises(ValueError, match=message):
        sweep(check(SweepConfig, {**told, "output_dir": str(tmp_path / "sweep")}, "test"))


def test_features_and_decoded_clips_come_from_an_object_store(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "Bucket", MemoryBucket.anew({}))
    Live(corpus / "features", "s3://lab/x").give_all()
    here = tmp_path / "here"
    plan = plan_finetune(config_of(corpus, features_dir=str(here), remote="s3://lab/x"))
    assert plan.parts == plan_finetune(config_of(corpus)).parts
    (part,) = (corpus / "features").glob("media/*/unit-*.h5")
    assert (here / part.relative_to(corpus / "features")).read_bytes() == part.read_bytes()
