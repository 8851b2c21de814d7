"""`make demo`: the whole pipeline on a corpus that it synthesises, with small untrained encoders.

Each step runs a stage exactly as its own command would, from the YAML files in configs/demo.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import extract.__main__ as stage_one
import fuse.finetune.__main__ as finetune
import fuse.predict.__main__ as predict
import fuse.robustness.__main__ as robustness
import fuse.studies.report.__main__ as report
import fuse.train as stage_two
from cache.corpus.clips import read_corpus
from configs.command.entry import main
from configs.loader import load_config
from configs.schema.demo import DemoConfig, RandomEncodersConfig
from configs.schema.features import FeaturesConfig
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import FusionConfig
from configs.schema.predict import PredictConfig
from configs.schema.studies import ReportConfig, RobustnessConfig
from extract.corpora.synthetic.corpus import write_corpus
from extract.corpora.synthetic.encoders import write_random_encoders
from fuse.runs.folder import METRICS, PREDICTIONS
from fuse.scores.predictions import read_predictions

SETTINGS = Path(__file__).parents[1] / "configs" / "demo"
OUTPUTS = Path("outputs/demo")
REPORT = "report.html"
# What is trained, by its folder: settings beside those of fusion.yaml.
FUSIONS: dict[str, Sequence[str]] = {
    "fusion": (),
    "reliable": ("head=late-reliable", "unimodal=mlp"),
    "audio-alone": ("modalities=[audio]",),
    "video-alone": ("modalities=[video]",),
}
# The demo's folder is its own: settings of an earlier version are no reason to stop.
OVERWRITE = "overwrite=true"


def run(config: DemoConfig) -> int:
    """Run every stage; returns the first exit code that is not 0."""
    start = time.monotonic()
    _say("1/7 corpus: 8 emotions x 8 speakers x 2 sentences, synthesised")
    if not Path(config.root, "metadata.csv").exists():
        write_corpus(Path(config.root), seed=config.seed, repetitions=config.repetitions)
    write_random_encoders(load_config(RandomEncodersConfig, SETTINGS / "encoders.yaml"))
    stages: list[tuple[str, Callable[[], int]]] = [
        ("2/7 features: stage one on 2 ranks, clean and eight conditions", _features),
        ("3/7 fusion: stage two, two ways to join three modalities, and audio and video alone", _fusion),
        ("4/7 fine-tuning: encoders and head together, DDP on 2 ranks", _finetune),
        ("5/7 robustness table", _robustness),
        ("6/7 report: one page about both fusions and the fine-tune", _report),
        ("7/7 a prediction", lambda: _prediction(Path(config.root))),
    ]
    for title, stage in stages:
        _say(title)
        code = stage()
        if code:
            return code
    _conclude(time.monotonic() - start)
    return 0


def _features() -> int:
    return stage_one.run(load_config(FeaturesConfig, SETTINGS / "features.yaml"))


def _fusion() -> int:
    for name, chosen in FUSIONS.items():
        settings = [f"output_dir={OUTPUTS / name}", *chosen, OVERWRITE]
        print(f"-- {' '.join([name, *chosen])}")
        code = stage_two.run(load_config(FusionConfig, SETTINGS / "fusion.yaml", settings))
        if code:
            return code
    return 0


def _finetune() -> int:
    return finetune.run(load_config(FinetuneConfig, SETTINGS / "finetune.yaml", [OVERWRITE]))


def _robustness() -> int:
    return robustness.run(load_config(RobustnessConfig, SETTINGS / "robustness.yaml"))


def _prediction(root: Path) -> int:
    """One clip of a speaker who was never seen, from its file."""
    test = read_predictions(OUTPUTS / "fusion" / PREDICTIONS).select(split="test")
    clip = next(one for one in read_corpus(root / "metadata.csv").clips if one.clip_id == test.clip_id[0])
    print(f"make predict CLIP={root / clip.path} RUN={OUTPUTS / 'fusion'}   (said with the emotion: {clip.label})")
    config = PredictConfig(clip=str(root / clip.path), run=str(OUTPUTS / "fusion"), statement=clip.statement)
    return predict.run(config)


def _report() -> int:
    return report.run(load_config(ReportConfig, SETTINGS / "report.yaml", [f"out={OUTPUTS / REPORT}"]))


def _conclude(seconds: float) -> None:
    _say(f"done in {seconds:.0f} s")
    chance = 1 / len(_metrics(OUTPUTS / "fusion")["labels"])
    print(f"test UAR on speakers 23 and 24, who were never seen (chance {chance:.3g}):")
    for name in (*FUSIONS, "finetune"):
        test = _metrics(OUTPUTS / name)["test"]
        seeds = f", mean over {test['seeds']} seeds" if test["seeds"] > 1 else ""
        print(f"  {name:12} {test['uar']:.3f}  ({test['clips']} clips, {test['speakers']} speakers{seeds})")
    tuned = _metrics(OUTPUTS / "finetune")
    start = tuned["before"]["test"]["uar"]
    print(f"  The fine-tune has one seed; its start, the same seed before it: {start:.3f} ({tuned['init']})")
    print("The encoders are small and untrained and the people are drawn: this shows the pipeline, not a result.")
    print("Noise does not reach the text here: it is the sentence itself, no speech recogniser runs.")
    print("Pictures and tables:")
    for path in sorted(p for p in OUTPUTS.rglob("*") if p.suffix in (".png", ".md") and "fold-" not in str(p)):
        print(f"  {path}")
    print(f"All of it on one page, to open in a browser: {OUTPUTS / REPORT}")


def _metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text())
    return metrics


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(DemoConfig, run, "The whole pipeline on a synthetic corpus."))
