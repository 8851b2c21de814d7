"""A fine-tuned run for others: each encoder as transformers knows it, with its processor, the head, and a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from cache.files.atomic import write_atomic
from extract.encoders.catalogue import encoder_class
from extract.encoders.loading import load_network
from extract.encoders.models import SETTINGS, TUNED, Model
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import FinetunePlan
from fuse.model.fusion import plain_settings

HEAD, HEAD_SETTINGS, CARD = "head.safetensors", "head.json", "README.md"
# What transformers writes itself, and what lists weights that are now in one file.
WRITTEN_ANEW = ("config.json", "generation_config.json")


def export(plan: FinetunePlan, model: EndToEndModel, scores: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write all of it.

    Args:
        plan: what was fine-tuned, and on whom.
        model: with the weights that are kept.
        scores: "before" and "after" to split to what `fuse.scores.metrics.summarise` says.
        folder: gets a folder per encoder.
    """
    for name, network in model.networks.items():
        _export_encoder(name, plan.models[name], network, folder / name)
        write_atomic(folder / name / TUNED, json.dumps({"speakers": list(_tuned_on(plan))}, indent=1) + "\n")
    save_file({name: value.cpu().contiguous() for name, value in model.fusion.state_dict().items()}, folder / HEAD)
    kept = plan.start.checkpoint
    head = {
        "settings": plain_settings(kept.settings),
        "labels": list(plan.label_names),
        "layers": kept.layers,
        "standardise": kept.standardise,
        "audio_seconds": plan.config.audio_seconds,
    }
    write_atomic(folder / HEAD_SETTINGS, json.dumps(head, indent=1) + "\n")
    write_atomic(folder / CARD, _card(plan, scores))


def _tuned_on(plan: FinetunePlan) -> tuple[str, ...]:
    """Who was trained on, and who chose the epoch."""
    return (*plan.start.fold.train, *plan.start.fold.validation)


def _export_encoder(modality: str, model: Model, network: Any, folder: Path) -> None:
    """The whole model that it is a part of, as it was but for what learned (Whisper keeps its decoder)."""
    whole = load_network(model)
    encoder_class(modality, model).tower(whole).load_state_dict(network.state_dict())
    whole.save_pretrained(folder)
    for path in sorted(path for pattern in SETTINGS for path in model.folder.glob(pattern)):
        if path.name not in (*WRITTEN_ANEW, TUNED) and not path.name.endswith("index.json"):
            shutil.copyfile(path, folder / path.name)


def _card(plan: FinetunePlan, scores: Mapping[str, Mapping[str, Any]]) -> str:
    fold, config = plan.start.fold, plan.config
    rows = [
        f"| {when} | {split} | {one['uar']:.3f} | {one['accuracy']:.3f} | {one['clips']} | {one['speakers']} |"
        for when, splits in scores.items()
        for split, one in splits.items()
    ]
    encoders = [
        f"- `{name}/`: {model.name} ({model.model_type}), weights before: SHA-256 {model.weights_sha256[:12]}"
        for name, model in plan.models.items()
    ]
    return CARD_TEXT.format(
        encoders="\n".join(encoders),
        scores="\n".join(rows),
        protocol=config.protocol,
        fold=fold.number,
        seed=plan.seed,
        train=", ".join(fold.train),
        validation=", ".join(fold.validation),
        test=", ".join(fold.test),
        labels=", ".join(plan.label_names),
        corpus=Path(config.corpus).name,
        sound="whole" if config.audio_seconds is None else f"cut or repeated to {config.audio_seconds:g} s",
        note="\n**Its encoders had random weights: plumbing, not a result.**\n" if plan.random_weights else "",
    )


CARD_TEXT = """# A fine-tuned emotion recogniser
{note}
## What is here

{encoders}
- `head.safetensors`, `head.json`: standardiser, mix of layers and head, and how its rows are made.

Each folder loads with `transformers.AutoModel.from_pretrained`; `make features SET=encoders.audio=<this folder>/audio`
computes features with it.

## Scores

| weights | split | UAR | accuracy | clips | speakers |
|---|---|---|---|---|---|
{scores}

Protocol `{protocol}`, fold {fold}, seed {seed}. The epoch was chosen on the validation speakers, whose scores are
flattered by that; those of test speakers are not.

## Data

{corpus}, labels {labels}; sound {sound}.

- trained on speakers {train}
- epoch chosen on speakers {validation}
- tested on speakers {test}

Features of these encoders must not be tested on the speakers of the first two lines: `tuned.json` beside the weights
names them, and a protocol that would is refused.

## Licences

The weights are a changed form of those they started from, and stay under their licences: look at the pages of the
models named above (VideoMAE's weights, for one, are CC BY-NC 4.0). What is learned from RAVDESS is under
CC BY-NC-SA 4.0: no commercial use. TriFuse's code is MIT.

## Limits

It tells which of its labels an actor was told to show, not what anybody feels, and answers with one of them whatever it
hears. Other speakers, languages, rooms and everyday speech are likely to score lower. Not for decisions about people.
"""
