"""Stage one against the usual loop, and its overhead over the bare forward passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from cache.corpus.clips import Clip, write_metadata
from configs.loader import check
from configs.schema.features import DEFAULT_CONDITIONS, FeaturesConfig
from extract.encoders.base import NetworkEncoder
from extract.encoders.preparer import Inputs
from extract.media.decode import decode
from extract.run.plan import make_plan, prepare_stores
from extract.run.rank import compute
from extract.run.unit import Observer, Tools, load_tools
from tests.benchmarks.baselines.true_encoders import write_true_encoders
from tests.benchmarks.baselines.usual_loop import usual_loop
from tests.benchmarks.stopwatch import interleaved
from tests.tiny.corpus import pictures, tone, write_mp4

CLIPS, SECONDS, FPS = 4, 3.7, 30


def run(folder: Path) -> list[str]:
    """Time clean plus seven conditions, and clean alone; returns the lines of the report."""
    torch.set_num_threads(1)
    encoders = write_true_encoders(folder / "encoders")
    corpus = _write_corpus(folder / "corpus")
    stage = Stage(folder, corpus, encoders, tuple(map(str, DEFAULT_CONDITIONS)))
    clean = Stage(folder, corpus, encoders, ("clean",))
    clean.prepare()
    times = interleaved(
        {
            "stage one": stage.run,
            "all again": lambda: stage.usual(only_changed=False),
            "what changed": lambda: stage.usual(only_changed=True),
        },
        rounds=1,
    )
    alone = {
        "clean": clean.run,
        "usual": lambda: clean.usual(only_changed=True),
        "forward": clean.forward,
    }
    # A difference of per cents between runs of half a minute needs a median.
    times |= interleaved(alone, rounds=3)
    overhead = times["clean"].cpu_seconds / times["forward"].cpu_seconds - 1
    return [
        f"{CLIPS} clips of {SECONDS} s at 1280x720, encoders of true size (random weights), one thread:",
        f"  8 conditions: the loop that re-encodes everything takes {times['all again'].over(times['stage one'])}",
        f"  8 conditions: the loop that re-encodes what changed takes {times['what changed'].over(times['stage one'])}",
        f"  clean alone: the usual loop takes {times['usual'].over(times['clean'])}",
        f"  clean alone: decoding, corrupting, storing cost {100 * overhead:.1f} % over the bare forward passes",
        f"  decodes: {stage.decodes()} of {CLIPS} clips for all 8 conditions",
    ]


class Stage:
    """A corpus under some conditions, extracted by stage one in this process or by the usual loop."""

    def __init__(self, folder: Path, corpus: Path, encoders: dict[str, str], conditions: tuple[str, ...]) -> None:
        """Load the models once: loading is not what is compared."""
        self.folder, self.conditions = folder, conditions
        self.config = check(
            FeaturesConfig,
            {
                "corpus": str(corpus),
                "features_dir": str(folder / f"features-{len(conditions)}"),
                "encoders": encoders,
                "asr": {"model": None},
                "conditions": list(conditions),
            },
            "bench",
        )
        plan = make_plan(self.config)
        self.tools: Tools = load_tools(plan, {"audio", "video", "text"}, torch.device(plan.device))
        self.decoded: list[int] = []
        self.prepared: list[tuple[NetworkEncoder, Inputs]] = []

    def run(self) -> None:
        """Stage one from nothing."""
        shutil.rmtree(self.config.features_dir, ignore_errors=True)
        self.decoded.clear()
        plan = make_plan(self.config)
        prepare_stores(plan)
        compute(plan, plan.units, self.tools, Observer(decoded=self.decoded.append))

    def usual(self, only_changed: bool) -> None:
        """The usual loop, same networks, threads and frames."""
        plan = make_plan(self.config)
        out = self.folder / f"npy-{len(self.conditions)}"
        usual_loop(plan.corpus, self.tools.encoders, self.conditions, out, 16, 224, only_changed)

    def forward(self) -> None:
        """The three networks on inputs that were prepared before the clock was started."""
        with torch.inference_mode():
            for encoder, inputs in self.prepared:
                encoder.states(inputs)

    def prepare(self) -> None:
        """Inputs of every clip, for `forward`."""
        for clip in make_plan(self.config).corpus.clips:
            media = decode(self.folder / "corpus" / clip.path, 16, 224)
            signals = {"audio": media.waveform_T, "video": media.frames_THWC, "text": clip.statement}
            encoders = self.tools.encoders.items()
            self.prepared += [(encoder, encoder.preparer.inputs([signals[name]])) for name, encoder in encoders]

    def decodes(self) -> int:
        """Clips decoded by the last run."""
        return sum(self.decoded)


def _write_corpus(folder: Path) -> Path:
    clips = []
    for number in range(CLIPS):
        clip = Clip(f"c{number}", f"c{number}.mp4", "calm", str(number), statement="Kids are talking by the door")
        frames = pictures(round(SECONDS * FPS), 1280, 720, seed=number)
        write_mp4(folder / clip.path, tone(SECONDS, seed=number), frames, fps=FPS)
        clips.append(clip)
    write_metadata(clips, folder / "metadata.csv")
    return folder / "metadata.csv"
