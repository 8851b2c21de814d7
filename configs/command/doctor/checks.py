"""Facts about a machine into findings: what is well, what is doubtful, what stops a run, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.command.doctor.machine import Machine
from configs.schema.features import FeaturesConfig

Level = Literal["ok", "warn", "fail"]
PYTHONS = ((3, 11), (3, 12))
GIB = 1 << 30
# Before anything is known of the corpus: RAVDESS's.
USUAL_CLIPS, USUAL_SECONDS = 1440, 4
# The widest of what is usual, base models: 13 hidden states of 768 numbers of 4 bytes.
BYTES_OF_A_ROW = 13 * 768 * 4
SAMPLE_BYTES_A_SECOND = 16_000 * 4
LEAST_FREE_BYTES = GIB
# Weights of the default recipe's four models in float32 (1.5 GB), torch, and a decoder: an estimate.
BYTES_OF_A_RANK = 3 * GIB
# CUDA 13 dropped these; the same torch for CUDA 12.6 has them.
OLDER_BUILD = "https://download.pytorch.org/whl/cu126"
AMPERE = 8


@dataclass(frozen=True)
class Finding:
    """One line of the report, and what to do about it ("" where nothing is)."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def examine(machine: Machine, config: FeaturesConfig, ranks: int) -> list[Finding]:
    """Judge everything, the most fundamental first."""
    checks: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _torch,
        _gpus,
        lambda one: _disk(one, config),
        lambda one: _decoders(one, config),
        lambda one: _models(one, config),
        lambda one: _whisper(one, config),
        lambda one: _memory(one, ranks),
        lambda one: _threads(one, config, ranks),
    )
    return [finding for check in checks for finding in check(machine)]


def _python(machine: Machine) -> Iterator[Finding]:
    name = ".".join(map(str, machine.python))
    if machine.python in PYTHONS:
        yield Finding("ok", "python", name)
    else:
        yield Finding(
            "fail", "python", f"{name} is not supported", "remove .venv, then make setup PYTHON=/path/to/python3.12"
        )


def _packages(machine: Machine) -> Iterator[Finding]:
    missing = [f"{name}=={wanted}" for name, (wanted, found) in machine.packages.items() if not found]
    other = [f"{name} {found}, not {wanted}" for name, (wanted, found) in machine.packages.items() if found != wanted]
    if missing:
        yield Finding("fail", "packages", f"missing: {', '.join(missing)}", "rm -f .venv/.ready; make setup")
    elif other:
        yield Finding(
            "warn",
            "packages",
            f"{'; '.join(other)}: stores and scores may differ from those of others",
            "rm -f .venv/.ready; make setup",
        )
    else:
        yield Finding("ok", "packages", f"{len(machine.packages)} as pinned")


def _torch(machine: Machine) -> Iterator[Finding]:
    if machine.torch.failure:
        yield Finding("fail", "torch", machine.torch.failure, "remove .venv, then make setup")
        return
    cuda = machine.torch.found["cuda"]
    yield Finding("ok", "torch", f"{machine.torch.found['version']}, {f'CUDA {cuda}' if cuda else 'for CPUs alone'}")


def _gpus(machine: Machine) -> Iterator[Finding]:
    if machine.torch.failure:
        return
    devices = machine.torch.found["devices"]
    for name, major, minor, memory in devices:
        found = f"{name}, capability {major}.{minor}, {memory / GIB:.0f} GiB"
        if _built_for(machine.torch.found["built_for"], major, minor):
            format_ = "bfloat16" if major >= AMPERE else "float16 (no bfloat16 below capability 8.0)"
            yield Finding("ok", "gpu", f"{found}; fine-tunes in {format_}")
        else:
            yield Finding(
                "fail",
                "gpu",
                f"{found}: this torch has no kernels for it",
                f"remove .venv, then make setup TORCH_INDEX={OLDER_BUILD}; or run on the CPU: CUDA_VISIBLE_DEVICES=",
            )
    if not devices and machine.gpus:
        yield Finding(
            "warn",
            "gpu",
            f"the driver lists {'; '.join(machine.gpus)}, torch sees none; runs would take the CPU",
            f"look at CUDA_VISIBLE_DEVICES and the driver; for an older driver: make setup TORCH_INDEX={OLDER_BUILD}",
        )
    elif not devices:
        yield Finding("ok", "gpu", "none; everything runs on the CPU")


def _built_for(built_for: list[str], major: int, minor: int) -> bool:
    """Kernels run on their own major version from their minor version on; PTX (compute_) on everything later."""
    for kernel in built_for:
        kind, _, number = kernel.partition("_")
        digits = "".join(character for character in number if character.isdecimal())
        at = (int(digits[:-1]), int(digits[-1]))
        if kind == "compute" and at <= (major, minor):
            return True
        if kind == "sm" and at[0] == major and at[1] <= minor:
            return True
    return False


def needed_bytes(clips: int, config: FeaturesConfig) -> int:
    """At most, before compression: decoded clips, three modalities under clean, two under every other condition."""
    frames = config.media.frames * config.media.size**2 * 3
    rows = BYTES_OF_A_ROW * (3 + 2 * (len(config.conditions) - 1))
    return clips * (frames + USUAL_SECONDS * SAMPLE_BYTES_A_SECOND + rows)


def _disk(machine: Machine, config: FeaturesConfig) -> Iterator[Finding]:
    clips = machine.clips or USUAL_CLIPS
    need = needed_bytes(clips, config)
    room = f"{machine.free_bytes / GIB:.1f} GiB free at {machine.features_dir}"
    wants = f"features of {clips} clips under {len(config.conditions)} conditions take up to {need / GIB:.1f} GiB"
    elsewhere = "make room, or SET=features_dir=/another/disk/features"
    if not machine.writable:
        yield Finding("fail", "disk", f"{machine.features_dir} may not be written", elsewhere)
    elif machine.free_bytes < min(need, LEAST_FREE_BYTES):
        yield Finding("fail", "disk", f"{room}; {wants}", elsewhere)
    elif machine.free_bytes < need:
        yield Finding("warn", "disk", f"{room}; {wants}", elsewhere)
    else:
        yield Finding("ok", "disk", f"{room}; {wants}")


def _decoders(machine: Machine, config: FeaturesConfig) -> Iterator[Finding]:
    again = "rm -f .venv/.ready; make setup: the wheel of the pinned version has it"
    if machine.av.failure:
        yield Finding("fail", "PyAV", machine.av.failure, again)
    elif machine.av.found["lacks"]:
        lacks = ", ".join(machine.av.found["lacks"])
        yield Finding("warn", "PyAV", f"{machine.av.found['version']} cannot decode {lacks}", again)
    else:
        yield Finding("ok", "PyAV", f"{machine.av.found['version']}; H.264, HEVC, AV1, VP9, AAC, MP3, Opus, FLAC")
    if machine.decord.failure:
        needed = config.media.reader == "decord"
        yield Finding("fail" if needed else "warn", "decord", machine.decord.failure, "SET=media.reader=av")
    else:
        yield Finding("ok", "decord", machine.decord.found["version"])


def _models(machine: Machine, config: FeaturesConfig) -> Iterator[Finding]:
    settings = {getattr(config.encoders, one): f"encoders.{one}" for one in ("audio", "video", "text")}
    settings.setdefault(config.asr.hub_name, "asr.model")
    for name, folder in machine.models.items():
        instead = f"download it where there is network, and SET={settings[name]}=models/{Path(name).name}"
        if folder:
            yield Finding("ok", "model", f"{name} is here ({folder})")
        elif machine.offline:
            yield Finding("fail", "model", f"{name} is not here, and HF_HUB_OFFLINE is set", f"unset it; or {instead}")
        elif machine.hub_answers:
            yield Finding("ok", "model", f"{name} will be downloaded from the hub on first use")
        else:
            yield Finding("fail", "model", f"{name} is not here, and the hub does not answer", instead)


def _whisper(machine: Machine, config: FeaturesConfig) -> Iterator[Finding]:
    file = machine.whisper_file
    if file is None:
        wanted = (
            f"{config.asr.hub_name} is a model of transformers" if config.asr.model else "not wanted (asr.model=null)"
        )
        yield Finding("ok", "whisper", wanted)
    elif file.is_file():
        yield Finding("ok", "whisper", str(file))
    else:
        yield Finding(
            "warn",
            "whisper",
            f"no {file}; the recogniser is downloaded on first use, if there is network",
            f"else copy the checkpoint there or SET=asr.model=/path/{file.name}; "
            "asr.model=null reads the corpus's statements",
        )


def _memory(machine: Machine, ranks: int) -> Iterator[Finding]:
    if not machine.memory_bytes:
        yield Finding("warn", "memory", "this system does not say how much is free", f"about 3 GiB for each of {ranks}")
        return
    found = f"{machine.memory_bytes / GIB:.1f} GiB free; {ranks} ranks of the default recipe take about {3 * ranks} GiB"
    fits = machine.memory_bytes // BYTES_OF_A_RANK
    if fits >= ranks:
        yield Finding("ok", "memory", found)
    else:
        yield Finding("warn", "memory", found, "RANKS=1, or smaller encoders" if fits <= 1 else f"RANKS={fits}")


def _threads(machine: Machine, config: FeaturesConfig, ranks: int) -> Iterator[Finding]:
    wanted = ranks * config.threads
    found = f"{machine.cores} cores; {ranks} ranks of {config.threads} threads"
    if wanted <= machine.cores:
        spare = machine.cores // ranks
        more = f"; threads={spare} would use all of them" if spare > config.threads else ""
        yield Finding("ok", "threads", found + more)
    else:
        remedy = f"RANKS={max(1, machine.cores // config.threads)}"
        yield Finding("warn", "threads", f"{found} would wait for each other", remedy)
