"""Pretrained models as folders: where they are, what they are, and a fingerprint of their weights. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.files.hashes import sha256_of
from cache.media import Source
from configs.schema.features import MediaSettings

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Tokenizers of SentencePiece are called spm.model, spiece.model or sentencepiece.bpe.model.
SETTINGS = ("*.json", "*.txt", "*.model")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# Settings of preprocessing: in a file of their own, or since transformers 5 below one of these keys of one for all.
OWN_SETTINGS, ALL_SETTINGS = "preprocessor_config.json", "processor_config.json"
PREPROCESSING = {"audio": "feature_extractor", "video": "image_processor"}
SECONDS_FOR_AN_ANSWER = 15.0
# What Whisper, DistilBERT and the others call the same thing in config.json.
LAYERS = ("encoder_layers", "n_layers", "num_hidden_layers")
WIDTH = ("d_model", "dim", "hidden_size")
# CLIP's vision half has a configuration of its own inside the whole; what equals these defaults is left out there.
VISION = "vision_config"
# Pillow's numbers of the filters, as processors store them.
RESAMPLE = {2: "bilinear", 3: "bicubic"}
# Beside the weights of a fine-tuned encoder: who it was tuned on (written by fuse/finetune).
TUNED = "tuned.json"
# Places of a model of texts that does not say how many; those of the marks, and those that some leave empty.
USUAL_PLACES, PLACES_OF_MARKS = 512, 8
VISION_DEFAULTS = {"num_hidden_layers": 12, "hidden_size": 768, "image_size": 224}


@dataclass(frozen=True)
class Model:
    """A model folder.

    Attributes:
        name: last component of the name it was asked for by; names the array in the store.
        folder: where it lies on this machine.
        model_type: as in `config.json`.
        layers: hidden states it returns, the embedding output included.
        width: size of one hidden state.
        frames: how many of them a video encoder takes; 0: any number (image encoders), or it takes none.
        size: pixels that an encoder of pictures takes, those its own processor makes; 0 for others.
        short_side, resample: how that processor resizes before it cuts; 0 and "" where it does not say.
        random_weights: it was never trained; results from it say so.
        weights_sha256, settings_sha256: of the weights, and of preprocessor and tokenizer files.
        files: all of these as they were when they were hashed; without hashes of their own.
        tuned_on: speakers that it was fine-tuned on here; empty for others.
    """

    name: str
    folder: Path
    model_type: str
    layers: int
    width: int
    frames: int
    size: int
    short_side: int
    resample: str
    random_weights: bool
    weights_sha256: str
    settings_sha256: str
    files: Mapping[Path, Source]
    tuned_on: tuple[str, ...] = ()


def find_model(name: str) -> Model:
    """Locate a model by hub name or local directory and describe it.

    `config.json` is read here and not by `AutoConfig`: the launcher starts without torch and transformers, whose
    import takes longer than a run that has nothing to do.

    Raises:
        ValueError: nothing there, and how to name a local directory instead.
    """
    folder = locate(name)
    try:
        config = json.loads((folder / "config.json").read_text())
        sizes = {**VISION_DEFAULTS, **config[VISION]} if VISION in config else config
        layers = int(_first_of(sizes, LAYERS)) + 1
        width = int(_first_of(sizes, WIDTH))
        model_type = str(config["model_type"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {folder} is no transformers model folder (config.json: {error!r})") from error
    picture = _preprocessing(folder, "video") if sizes.get("image_size") else {}
    # Looked at before they are hashed: a change in between shows later.
    files = looked_at(name, folder)
    return Model(
        name=Path(name).name,
        folder=folder,
        model_type=model_type,
        layers=layers,
        width=width,
        frames=int(config.get("num_frames") or 0),
        size=_picture_size(picture, sizes),
        short_side=_short_side(picture),
        resample=RESAMPLE.get(picture.get("resample", 0), ""),
        random_weights=bool(config.get("random_weights", False)),
        weights_sha256=_weights_sha256(weight_files(name, folder)),
        settings_sha256=_settings_sha256(folder),
        files=files,
        tuned_on=tuple(map(str, _json_of(folder / TUNED).get("speakers", ()))),
    )


def locate(name: str) -> Path:
    """The folder of a model: a local directory, or what the hub has under that name.

    Raises:
        ValueError: nothing there, and how to name a local directory instead.
    """
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _from_hub(name)


def looked_at(name: str, folder: Path) -> dict[Path, Source]:
    """The files of a model as they are now, unhashed."""
    return {path: Source.of(path, "") for path in [*weight_files(name, folder), *_settings_files(folder)]}


def _first_of(config: Mapping[str, Any], keys: Sequence[str]) -> Any:
    key = next((key for key in keys if key in config), keys[-1])
    return config[key]


def _preprocessing(folder: Path, modality: str) -> dict[str, Any]:
    """Settings of sound's or pictures' preprocessing as transformers finds them; empty where there are none."""
    whole: dict[str, Any] = _json_of(folder / ALL_SETTINGS)
    own: dict[str, Any] = whole.get(PREPROCESSING[modality]) or _json_of(folder / OWN_SETTINGS)
    return own


def _json_of(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} holds no settings, but a {type(settings).__name__}")
    return settings


def _short_side(settings: Mapping[str, Any]) -> int:
    """What the processor brings the short side to; 0 where it squeezes the picture into a square, or does not say."""
    size = settings.get("size")
    return int(size.get("shortest_edge") or 0) if isinstance(size, Mapping) else 0


def _picture_size(settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Side of the square that the model's processor makes; DINOv2's is not the size it was trained at."""
    if not config.get("image_size"):
        return 0
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    made = crop or settings.get("size") or config["image_size"]
    # Numbers in old files and in most configurations; objects and lists elsewhere.
    if isinstance(made, Mapping):
        return int(_first_of(made, ("height", "shortest_edge")))
    return int(made[0] if isinstance(made, Sequence) else made)


def check_preprocessing(modality: str, model: Model) -> None:
    """Refuse a model without the files that say how its input is prepared, before anything is started.

    Without a tokenizer transformers makes one up that knows no word: every text would get one and the same row.

    Raises:
        ValueError: one line that names the files that are missing.
    """
    if modality == "text":
        if not any(any(model.folder.glob(name)) for name in VOCABULARIES):
            raise ValueError(
                f"encoders.text: {model.folder} has no tokenizer ({', '.join(VOCABULARIES)}); copy the files of "
                "the tokenizer there from the model that it was trained from"
            )
    elif not _preprocessing(model.folder, modality):
        raise ValueError(
            f"encoders.{modality}: {model.folder} has no {PREPROCESSING[modality].replace('_', ' ')}; add its "
            f"{OWN_SETTINGS}, or copy that of the model that it was trained from"
        )


def bytes_that_fit(model: Model) -> int:
    """A text of so many bytes has no more tokens than a model of texts can place: a token is a byte at least."""
    config, tokenizer = (_json_of(model.folder / name) for name in ("config.json", "tokenizer_config.json"))
    places = int(config.get("max_position_embeddings") or USUAL_PLACES)
    return min(places, int(tokenizer.get("model_max_length") or places)) - PLACES_OF_MARKS


def check_video_media(model: Model, media: MediaSettings) -> None:
    """Refuse media settings that the video encoder cannot take, naming the setting that would do.

    Raises:
        ValueError: another number of frames (image encoders take any), another size, or another resize than that
            of the model's own processor.
    """
    if model.frames and model.frames != media.frames:
        raise ValueError(
            f"encoders.video takes {model.frames} frames, the media store would keep {media.frames}; "
            f"set media.frames={model.frames}"
        )
    if model.size != media.size:
        raise ValueError(
            f"encoders.video takes {model.size} pixels, the media store would keep {media.size}; "
            f"set media.size={model.size}"
        )
    if model.resample and model.resample != media.resample:
        raise ValueError(f"encoders.video is fed {model.resample} resizes; set media.resample={model.resample}")
    if model.short_side and model.short_side != (media.short_side or media.size):
        raise ValueError(
            f"encoders.video cuts its square out of pictures of short side {model.short_side}; "
            f"set media.short_side={model.short_side}"
        )


def _from_hub(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ValueError(
            f"no folder {name}; name a local model directory or a hub model such as facebook/wav2vec2-base-960h"
        )
    from huggingface_hub import snapshot_download

    silence = _hub_error(name)
    patterns = [[*SETTINGS, "model*.safetensors"], [*SETTINGS, "pytorch_model*.bin"]]
    try:
        for allowed in patterns:
            folder = Path(snapshot_download(name, allow_patterns=allowed, local_files_only=silence is not None))
            if any((folder / weights).exists() for weights in WEIGHTS):
                return folder
    # The hub client raises a dozen kinds of errors for "not reachable" and "not there".
    except Exception as error:
        reason = type(silence or error).__name__
        raise ValueError(
            f"model {name} is neither a local directory nor reachable on the hub ({reason}); "
            "download it on a machine with network and give its directory, "
            f"e.g. SET=encoders.audio=models/{Path(name).name}"
        ) from error
    raise ValueError(f"model {name} on the hub has no PyTorch weights")


def _hub_error(name: str) -> Exception | None:
    """Why the hub does not know the model, or None. Downloads have no time limit: asking first has one."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=SECONDS_FOR_AN_ANSWER)
    except Exception as error:
        return error
    return None


def weight_files(name: str, folder: Path) -> list[Path]:
    """The files that hold the weights: one, or the shards that an index names.

    Raises:
        ValueError: there are none.
    """
    main = next((folder / weights for weights in WEIGHTS if (folder / weights).exists()), None)
    if main is None:
        raise ValueError(f"{name}: {folder} has no weights; expected {' or '.join(WEIGHTS[::2])}")
    if main.suffix != ".json":
        return [main]
    return [folder / shard for shard in sorted(set(json.loads(main.read_text())["weight_map"].values()))]


def refuse_changed(files: Mapping[Path, Source]) -> None:
    """Check, without hashing, that files are those that were hashed: their size, times and inode are as they were.

    Raises:
        ValueError: one is not; its name.
    """
    for path, known in files.items():
        if not known.looks_unchanged(path):
            raise ValueError(f"{path} was changed after this run had been planned; start it again")


def _weights_sha256(files: Sequence[Path]) -> str:
    if files[0].name in WEIGHTS:
        return sha256_of(files[0])
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def _settings_files(folder: Path) -> list[Path]:
    """Everything small that steers preprocessing and architecture."""
    return sorted(p for pattern in SETTINGS for p in folder.glob(pattern) if not p.name.endswith("index.json"))


def _settings_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in _settings_files(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
