"""Stage one as users start it, in processes of its own or in this one, on a tiny corpus with damaged clips."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from configs.command.entry import main
from configs.command.launch import Interruption
from configs.command.stop import StopRequest
from configs.schema.features import FeaturesConfig
from extract.__main__ import run
from extract.run import rank
from tests.tiny.corpus import pictures, tone, write_mp4, write_tiny_encoders, write_tiny_mp4
from tests.tiny.places import ROOT

COUNT = 20  # units of 8: rank 0 has units 0 and 2, rank 1 has unit 1
CONDITIONS = ("clean", "noise-white-0db", "occlude-block-50")
FAILED = {"c02": "the file is empty (0 bytes)", "c09": "not a readable media file", "c17": "no such file"}
ABSENT = {("c04", "audio"), ("c05", "video"), ("c06", "text")}


@dataclass(frozen=True)
class Site:
    """A corpus with damaged clips, and encoders; runs have a features folder each."""

    root: Path

    @property
    def clips(self) -> Path:
        return self.root / "corpus/clips"

    def config(self, features: str) -> Path:
        path = self.root / f"{features}.yaml"
        names = {"audio": "wav2vec2", "video": "videomae", "text": "roberta"}
        encoders = "".join(f"  {modality}: {self.root}/encoders/{name}\n" for modality, name in names.items())
        path.write_text(
            f"corpus: {self.root}/corpus/metadata.csv\nfeatures_dir: {self.root}/{features}\nencoders:\n{encoders}"
            f"asr: {{model: null}}\nconditions: [{', '.join(CONDITIONS)}]\nmedia: {{size: 32}}\nbatch_size: 3\n"
        )
        return path

    def start(self, features: str, *overrides: str, ranks: int = 2) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": str(ranks), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "extract", "--config", str(self.config(features)), *overrides]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=self.root, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]

    def run(self, features: str, *overrides: str, ranks: int = 2) -> Done:
        return finish(self.start(features, *overrides, ranks=ranks), self.root / features)

    def run_here(self, features: str, *overrides: str) -> Done:
        return run_here(self.config(features), self.root / features, *overrides)


@dataclass(frozen=True)
class Done:
    """A run that has ended, and its features folder."""

    code: int
    output: str
    folder: Path

    @property
    def stores(self) -> dict[str, bytes]:
        """Every file under *.zarr."""
        files = (path for store in self.folder.glob("*.zarr") for path in store.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


def finish(process: subprocess.Popen[str], folder: Path) -> Done:
    output, _ = process.communicate(timeout=200)
    return Done(process.returncode, output, folder)


def run_here(config: Path, folder: Path, *overrides: str) -> Done:
    """The same with one rank, all in this process: three others would each take seconds to import torch."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setenv("RANK", "0")
        patch.setenv("WORLD_SIZE", "1")
        for catcher in (Interruption, StopRequest):
            patch.setattr(catcher, "listen", lambda _: None)
        patch.setattr(Interruption, "torchrun", lambda _, arguments, *__, **___: rank.main(arguments[1:]))
        code = main(FeaturesConfig, run, "stage one", ["--config", str(config), *overrides])
    return Done(code, output.getvalue(), folder)


def write_site(root: Path) -> Site:
    """Twenty clips: three that fail, three that lack a modality each, and encoders."""
    site = Site(root)
    write_tiny_encoders(site.root / "encoders")
    clips = [
        Clip(
            f"c{n:02d}", f"clips/c{n:02d}.mp4", LABELS[n % 8], str(n % 4), statement=("Kids talk", "Dogs sit by")[n % 2]
        )
        for n in range(COUNT)
    ]
    for number, clip in enumerate(clips):
        write_tiny_mp4(site.root / "corpus" / clip.path, 0.4 + 0.1 * (number % 2), seed=number)
    (site.clips / "c02.mp4").write_bytes(b"")
    (site.clips / "c09.mp4").write_text("<html>not found</html>")
    (site.clips / "c17.mp4").unlink()
    write_mp4(site.clips / "c04.mp4", None, pictures(9))
    write_mp4(site.clips / "c05.mp4", tone(0.4), None)
    clips[6] = replace(clips[6], statement="")
    write_metadata(clips, site.root / "corpus/metadata.csv")
    return site


def after_ctrl_c(
    command: list[str], is_at_work: Callable[[subprocess.Popen[str]], object], environment: dict[str, str]
) -> Done:
    """What a command says once Ctrl-C reaches the group of the terminal, all of its processes but torchrun's."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env={**os.environ, **environment}, text=True, start_new_session=True, **streams)  # type: ignore[call-overload]
    wait_for(lambda: is_at_work(process), process)
    os.killpg(process.pid, signal.SIGINT)
    return finish(process, ROOT)


def ranks_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    return [p for p in psutil.Process(launcher.pid).children(recursive=True) if is_rank(p)]


def children_of(launcher: subprocess.Popen[str], module: str) -> int:
    """How many ranks of this module are at work: torchrun starts them by `-u -m`."""
    count = 0
    for process in psutil.Process(launcher.pid).children(recursive=True):
        with suppress(psutil.Error):
            count += process.cmdline()[1:4] == ["-u", "-m", module]
    return count


def is_rank(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return "extract.run.rank" in command and "configs.command.torchrun" not in command


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]
