"""Which Whisper is meant, what its weights are, and whether its engine can take it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.files.hashes import sha256_of
from cache.media import Source
from configs.schema.features import TRANSFORMERS, Asr
from extract.encoders.models import find_model, locate, looked_at

# Whisper's models of English alone are called base.en and so on; these also exist for every language it knows.
ENGLISH_ONLY, ENGLISH = ".en", ("en", "english")
MULTILINGUAL = ("tiny", "base", "small", "medium")


@dataclass(frozen=True)
class FoundWhisper:
    """The weights that a recogniser reads.

    Attributes:
        name: last component of what it was asked for by.
        weights_sha256: of the file or folder, or that it goes by name.
        settings_sha256: of the small files of a folder; "" where there is none.
    """

    name: str
    weights_sha256: str
    settings_sha256: str = ""


def asr_precision(device: str) -> str:
    """Number format that Whisper computes in on this kind of device, as its own program chooses it."""
    return "float16" if device == "cuda" else "float32"


def check_asr(asr: Asr) -> None:
    """Refuse a checkpoint that does not exist, or a language that the model does not know, before any start.

    Raises:
        ValueError: one line that names a model that would do.
    """
    model = asr.model or ""
    is_folder, is_file = Path(model).expanduser().is_dir(), Path(model).expanduser().is_file()
    by_path = model.startswith((".", "/", "~")) or model.endswith(".pt")
    if asr.engine == TRANSFORMERS and not is_file and not is_folder and by_path:
        raise ValueError(f"asr.model: no folder or file {model}; give a folder, a hub name, or a .pt file of OpenAI's")
    if asr.engine != TRANSFORMERS and is_folder:
        raise ValueError(f"asr.model: {model} is a folder; set asr.engine=transformers, or give a .pt file")
    if asr.engine != TRANSFORMERS and not is_file and ("/" in model or by_path):
        raise ValueError(
            f"asr.model: no checkpoint file {model}; give a Whisper name such as base.en, a .pt file, or null"
        )
    if not is_file and model.endswith(ENGLISH_ONLY) and asr.language.lower() not in ENGLISH:
        raise ValueError(english_only(model, asr.language))


def english_only(model: str, language: str) -> str:
    """What is wrong, and the name of a model that would do."""
    name = Path(model).name.removesuffix(ENGLISH_ONLY)
    instead = name if name in MULTILINGUAL else "base"
    return f"asr.language={language}: asr.model={model} knows English alone; set asr.model={instead}"


def place_of(asr: Asr) -> Path:
    """Where transformers finds the Whisper: a `.pt` file of OpenAI's, or a folder; OpenAI's names are the hub's.

    Raises:
        ValueError: nowhere.
    """
    file = Path(asr.model or "").expanduser()
    return file if file.is_file() else locate(asr.hub_name)


def recogniser_files(asr: Asr) -> Mapping[Path, Source]:
    """The recogniser's files as they are now, unhashed; none where there is no recogniser, or it goes by name.

    Raises:
        ValueError: they are not there.
    """
    file = Path(asr.model).expanduser() if asr.model else None
    if file and file.is_file():
        return {file: Source.of(file, "")}
    if not asr.model or asr.engine != TRANSFORMERS:
        return {}
    return looked_at(asr.model, place_of(asr))


def find_whisper(asr: Asr) -> FoundWhisper:
    """The weights of a recogniser that there is, hashed.

    Raises:
        ValueError: they are not there, or no Whisper's.
    """
    assert asr.model is not None, "asked for without a recogniser"
    file = Path(asr.model).expanduser()
    if file.is_file():
        return FoundWhisper(file.name, sha256_of(file))
    if asr.engine != TRANSFORMERS:
        return FoundWhisper(file.name, "by name")
    model = find_model(asr.hub_name)
    if model.model_type != "whisper":
        raise ValueError(f"asr.model: {asr.model} is no Whisper, but a {model.model_type}; give a Whisper")
    return FoundWhisper(model.name, model.weights_sha256, model.settings_sha256)
