"""A fine-tuned run stands in the table beside the run that it continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.conditions import parse_joint
from configs.command.stop import StopRequest
from configs.schema.finetune import FinetuneOptim, Lora
from configs.schema.studies import RobustnessConfig
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import plan_finetune
from fuse.finetune.rank import finetune
from fuse.finetune.training.loop import evaluate
from fuse.robustness import __main__ as robustness
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import STAGING
from fuse.scores.predictions import read_predictions
from tests.fuse.finetune.site import ALONE, CPU, NOISE, config_of, no_news


@pytest.mark.usefixtures("alone")
def test_its_rows_are_made_by_its_own_encoders_under_every_condition(corpus: Path, tmp_path: Path) -> None:
    """Fine-tuned runs were refused: cached features do not come from their encoders."""
    optim = FinetuneOptim(epochs=2, batch_size=4, lr=1e-2)
    config = config_of(corpus, optim=optim, lora=Lora(rank=2), export=False, output_dir=str(tmp_path / "tuned"))
    plan = plan_finetune(config)
    finetune(plan, *load(plan, CPU), ALONE, StopRequest())
    run = tmp_path / "tuned" / STAGING
    asked = RobustnessConfig(
        runs=(str(corpus / "fusion"), str(run)),
        conditions=(parse_joint(NOISE),),
        modalities=(("audio", "video", "text"), ("video",)),
        output_dir=str(tmp_path / "table"),
    )
    assert robustness.run(asked) == 0
    found = read_predictions(tmp_path / "table" / run.name / "predictions.csv")
    written = read_predictions(run / "predictions.csv").select(split="test")
    clean = found.select(condition="clean", modalities="audio+video+text")
    assert clean.clip_id.tolist() == written.clip_id.tolist()
    np.testing.assert_allclose(clean.probabilities_NC, written.probabilities_NC, atol=1e-5)
    noisy_plan = plan_finetune(replace(config, condition=parse_joint(NOISE), lora=None, unfreeze="none"))
    model, loaders = load(noisy_plan, CPU)
    checkpoint = read_checkpoint(run / "best_model.pth")
    model.fusion.load_state_dict(checkpoint.state)
    for name, weights in checkpoint.networks.items():
        model.networks[name].load_state_dict(weights)
    logits_NC = evaluate(model, clips_of(noisy_plan, "test"), loaders, ALONE, no_news())
    noisy = found.select(condition=NOISE, modalities="audio+video+text").probabilities_NC
    np.testing.assert_allclose(noisy, torch.from_numpy(logits_NC).double().softmax(1).numpy(), atol=1e-5)
    assert not np.allclose(noisy, clean.probabilities_NC, atol=1e-3)
    assert not len(found.select(condition=NOISE, modalities="video"))
