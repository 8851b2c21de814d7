"""`make app`: try a trained run on clips, on a page of this machine.

Exit codes: 0 it was ended; 2 bad input.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from cache.corpus.clips import Corpus, read_corpus
from configs.command.entry import main
from configs.schema.predict import AppConfig
from fuse.predict.app.page import build, quiet_gradio, serve
from fuse.predict.app.trial import Trial
from fuse.predict.model import load_configured


def run(config: AppConfig) -> int:
    """Load the run, serve the page until it is ended; uploads lie in a folder that goes with it."""
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="trifuse-app-") as folder:
        gradio = quiet_gradio(Path(folder))
        trial = load_trial(config, Path(folder))
        serve(gradio, build(gradio, trial), config)
    return 0


def load_trial(config: AppConfig, uploads: Path) -> Trial:
    """The run of a configuration, ready to be tried.

    Raises:
        ValueError: as `fuse.load`; or the run is adapted to speakers, and `speaker` names none that it knows.
    """
    model = load_configured(config)
    model.refuse_speaker(config.speaker)
    return Trial(model, config, uploads, _examples(config))


def _examples(config: AppConfig) -> Corpus | None:
    """The demo's clips are there after `make demo`, and need not be."""
    return read_corpus(Path(config.examples)) if config.examples and Path(config.examples).is_file() else None


if __name__ == "__main__":
    sys.exit(main(AppConfig, run, "Try a trained run on clips, on a page of this machine."))
