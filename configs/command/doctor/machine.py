"""What there is on this machine, as plain values: a test makes up others.

torch, PyAV and decord are tried in processes of their own: a wheel that does not fit may end the process that
imports it, and the doctor must live to say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from configs.schema.features import TRANSFORMERS, FeaturesConfig

CHECKOUT = Path(__file__).parents[3]
SECONDS_TO_IMPORT = 180
SECONDS_FOR_AN_ANSWER = 5.0
HUB = "https://huggingface.co"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TRUE = ("1", "on", "yes", "true")
# What no limit is called in a container's files, and the number that older kernels write for it.
NO_LIMIT, NO_LIMIT_BYTES = "max", 1 << 60
# FFmpeg's names of the decoders that clips need. AV1 by libdav1d: FFmpeg's own needs a graphics card.
DECODERS = ("h264", "hevc", "libdav1d", "vp9", "mpeg4", "aac", "mp3float", "opus", "vorbis", "flac", "pcm_s16le")

PROBES = {
    "torch": """
import torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())] if cuda else []
found = {
    "version": torch.__version__,
    "cuda": torch.version.cuda or "",
    "built_for": torch.cuda.get_arch_list(),
    "devices": [[one.name, one.major, one.minor, one.total_memory] for one in devices],
}
""",
    "av": f"""
import av, av.codec
found = {{"version": av.__version__, "lacks": [name for name in {DECODERS} if name not in av.codec.codecs_available]}}
""",
    "decord": """
import decord
found = {"version": decord.__version__}
""",
}


@dataclass(frozen=True)
class Probe:
    """What a package says of itself, or why it does not."""

    found: Mapping[str, Any]
    failure: str = ""


@dataclass(frozen=True)
class Machine:
    """Facts, none of them judged.

    Attributes:
        python: major and minor version.
        packages: by name, the pinned version and the one that is installed ("" if none is).
        torch, av, decord: what the probes found.
        gpus: as the driver lists them: name and compute capability.
        features_dir: the nearest folder above the features that exists.
        writable, free_bytes: of that folder.
        models: encoder name to the folder of its weights on this machine; "" where there is none.
        whisper_file: where Whisper's weights are, or would be downloaded to; None: no recogniser is wanted, or it is
            one of `models`.
        offline: HF_HUB_OFFLINE is set.
        hub_answers: the hub was reached; None: nobody had to ask.
        memory_bytes: that new processes may take, by the machine or by the container.
        cores: that this process may use.
        clips: lines of the corpus; 0: there is none yet.
    """

    python: tuple[int, int]
    packages: Mapping[str, tuple[str, str]]
    torch: Probe
    av: Probe
    decord: Probe
    gpus: tuple[str, ...]
    features_dir: Path
    writable: bool
    free_bytes: int
    models: Mapping[str, str]
    whisper_file: Path | None
    offline: bool
    hub_answers: bool | None
    memory_bytes: int
    cores: int
    clips: int


def look(config: FeaturesConfig) -> Machine:
    """Everything that the checks ask for; takes as long as importing torch does."""
    folder = _existing(Path(config.features_dir).expanduser().resolve())
    by_transformers = config.asr.engine == TRANSFORMERS and not Path(config.asr.hub_name).expanduser().is_file()
    heard_by = config.asr.hub_name if by_transformers else None
    names = [name for name in (config.encoders.audio, config.encoders.video, config.encoders.text, heard_by) if name]
    models = {name: _model_folder(name) for name in names}
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE
    corpus = Path(config.corpus).expanduser()
    return Machine(
        python=sys.version_info[:2],
        packages={name: (wanted, _installed(name)) for name, wanted in _pins().items()},
        **{name: probe(code) for name, code in PROBES.items()},
        gpus=_gpus(),
        features_dir=folder,
        writable=os.access(folder, os.W_OK),
        free_bytes=shutil.disk_usage(folder).free,
        models=models,
        whisper_file=None if config.asr.model is None or by_transformers else _whisper_file(config.asr.model),
        offline=offline,
        hub_answers=None if offline or all(models.values()) else _hub_answers(),
        memory_bytes=_memory_bytes(),
        cores=_cores(),
        clips=max(len(corpus.read_bytes().splitlines()) - 1, 0) if corpus.is_file() else 0,
    )


def probe(code: str) -> Probe:
    """Run code that sets `found` in a process of its own; its last words are the failure."""
    command = [sys.executable, "-c", f"{code}\nimport json\nprint(json.dumps(found))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_IMPORT, check=False)
    except subprocess.TimeoutExpired:
        return Probe({}, f"no answer in {SECONDS_TO_IMPORT} s")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"its process ended with {done.returncode}"]
        return Probe({}, last[0][:200])
    return Probe(json.loads(done.stdout.splitlines()[-1]))


def _pins() -> dict[str, str]:
    """What TriFuse imports: the first part of requirements.txt, or what the installed package asks for."""
    file = CHECKOUT / "requirements.txt"
    lines = file.read_text().partition("\n# Tests")[0].splitlines() if file.is_file() else requires("trifuse") or []
    pairs = [line.partition("#")[0].partition(";")[0].partition("==") for line in lines]
    return {name.strip(): wanted.strip() for name, equals, wanted in pairs if equals}


def _installed(name: str) -> str:
    try:
        # A build for another CUDA is the same release: 2.11.0+cu126.
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return ""


def _gpus() -> tuple[str, ...]:
    """What the driver lists, whether torch can use it or not."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ()
    command = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_IMPORT, check=False)
    except subprocess.TimeoutExpired:
        return ()
    return tuple(done.stdout.splitlines()) if done.returncode == 0 else ()


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _model_folder(name: str) -> str:
    """A local directory, or the snapshot in the hub's cache; one without weights does not count."""
    from huggingface_hub import try_to_load_from_cache

    folder = Path(name).expanduser()
    if not folder.is_dir():
        try:
            file = try_to_load_from_cache(name, "config.json")
        except ValueError:  # no name that the hub could know
            return ""
        if not isinstance(file, str):
            return ""
        folder = Path(file).parent
    return str(folder) if any(any(folder.glob(pattern)) for pattern in WEIGHTS) else ""


def _whisper_file(model: str) -> Path:
    if "/" in model or model.endswith(".pt"):
        return Path(model).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "whisper", f"{model}.pt").expanduser()


def _hub_answers() -> bool:
    import requests

    try:
        return bool(requests.head(os.environ.get("HF_ENDPOINT", HUB), timeout=SECONDS_FOR_AN_ANSWER).ok)
    except requests.RequestException:
        return False


def _memory_bytes() -> int:
    """What is available, or what the container leaves if that is less. 0: this system does not say."""
    lines = _words("/proc/meminfo")
    available = int(lines[lines.index("MemAvailable:") + 1]) * 1024 if "MemAvailable:" in lines else 0
    limit, used = _words("/sys/fs/cgroup/memory.max"), _words("/sys/fs/cgroup/memory.current")
    if not limit:
        folder = "/sys/fs/cgroup/memory/memory"
        limit, used = _words(f"{folder}.limit_in_bytes"), _words(f"{folder}.usage_in_bytes")
    if not (limit and used) or limit[0] == NO_LIMIT or int(limit[0]) > NO_LIMIT_BYTES:
        return available
    return min(available, int(limit[0]) - int(used[0]))


def _cores() -> int:
    """Cores that the scheduler gives this process, or the share that its container has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _words("/sys/fs/cgroup/cpu.max")
    if len(share) != 2 or share[0] == NO_LIMIT:
        return allowed
    return max(1, min(allowed, int(share[0]) // int(share[1])))


def _words(file: str) -> list[str]:
    try:
        return Path(file).read_text().split()
    except OSError:
        return []
