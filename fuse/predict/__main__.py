"""`make predict`: what a trained run says of clips that it has never seen.

Exit codes: 0 every clip was predicted; 2 bad input; 3 some clips could not be read (each is a line, or has its
`failure`), and the others were predicted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from configs.command.again import again
from configs.command.entry import main
from configs.schema.predict import PredictConfig
from fuse.predict.clips import find_clips
from fuse.predict.model import Prediction, TrainedModel, load_configured
from fuse.scores.metrics import accuracy, uar

LIKELIEST = 3


def run(config: PredictConfig) -> int:
    """Predict and print; returns the exit code."""
    if config.clip is None:
        raise ValueError("clip is missing; name a media file, a folder or a metadata.csv (make predict CLIP=x.mp4)")
    torch.set_num_threads(config.threads)
    wanted = find_clips(config.clip, config.clip_root, config.labels)
    start = time.monotonic()
    model = load_configured(config)
    if not (config.json or config.csv):
        parts = (f"{name} {seconds:.1f}" for name, seconds in model.encoder.loading_seconds.items())
        print(f"loaded {config.run} in {time.monotonic() - start:.1f} s ({', '.join(parts)})")
    statements = [one.statement if config.statement is None else config.statement for one in wanted]
    stretches = [one.stretch for one in wanted]
    predictions = model.predictions([one.path for one in wanted], statements, config.speaker, stretches)
    return _print(config, model, predictions, [one.label for one in wanted])


def _print(config: PredictConfig, model: TrainedModel, predictions: Iterator[Prediction], labels: Sequence[str]) -> int:
    """`labels`: of each clip, "" where nobody knows."""
    failed = 0
    several = []
    for one in predictions:
        failed += bool(one.failure)
        several.append(one)
        if not (config.json or config.csv):
            print("\n".join(_lines(one)), flush=True)
    if config.json:
        print(json.dumps([_plain(one) for one in several], indent=2, ensure_ascii=False, allow_nan=False))
    if config.csv:
        print(model.table(several).to_csv(index=False), end="")
    if not (config.json or config.csv) and any(labels):
        for line in score([one.label for one in several], labels, model.label_names):
            print(line)
    return 3 if failed else 0


def _lines(one: Prediction) -> Iterator[str]:
    if one.failure:
        yield f"{one.clip}: failed: {one.failure}"
        return
    order = sorted(one.probabilities, key=lambda label: -one.probabilities[label])
    yield f"{one.clip}: " + ", ".join(f"{label} {one.probabilities[label]:.3f}" for label in order[:LIKELIEST])
    yield "  contributions: " + ", ".join(f"{name} {value:+.3f}" for name, value in one.contributions.items())
    if one.heard and one.heard.transcript:
        # Without a recogniser it is what the table or the file's name says.
        yield f"  {'heard' if json.loads(one.heard.words) else 'text'}: {one.heard.transcript}"
    for name, reason in one.missing.items():
        yield f"  {name} is missing ({reason}); the run's stand-in takes its place"
    if one.unfamiliar:
        unlike = " and ".join(one.unfamiliar)
        yield f"  warning: {unlike} unlike anything that the run was trained on; do not rely on this answer"


def score(predicted: Sequence[str], labels: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """What the answers are worth for clips of a table, in lines to print.

    Args:
        predicted: of each clip, the answer; "" where it could not be read.
        labels: of each clip, what the table says.
        known: the labels that the run knows.
    """
    others = sorted(set(labels) - set(known))
    if others:
        yield (
            f"not scored: clips labelled {', '.join(others)}, which the run does not know (it knows "
            f"{', '.join(known)}); give these labels its names: {again(f'labels={{{others[0]}: {known[0]}}}')}"
        )
    numbers = {label: number for number, label in enumerate(known)}
    pairs = [
        (numbers[label], numbers[one]) for label, one in zip(labels, predicted, strict=True) if one and label in numbers
    ]
    if pairs:
        label_N, predicted_N = np.array(pairs).T
        shares = f"accuracy {100 * accuracy(label_N, predicted_N):.1f} %, UAR {100 * uar(label_N, predicted_N):.1f} %"
        yield f"against the labels of the table: {shares} ({len(pairs)} clips; is any of them from the training?)"


def _plain(one: Prediction) -> Mapping[str, Any]:
    """As JSON has it: words with their times; nothing where there is nothing."""
    words = json.loads(one.heard.words) if one.heard else []
    return {
        "clip": one.clip,
        "label": one.label or None,
        "probabilities": dict(one.probabilities),
        "contributions": dict(one.contributions),
        "missing": dict(one.missing),
        "unfamiliar": list(one.unfamiliar),
        "transcript": one.heard.transcript if one.heard else None,
        "words": words,
        "failure": one.failure or None,
    }


if __name__ == "__main__":
    sys.exit(main(PredictConfig, run, "Predict clips with a trained run.", flags=("json", "csv")))
