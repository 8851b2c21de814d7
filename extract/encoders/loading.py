"""Pretrained networks from a folder into memory, and proof that what the file holds arrived there."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from extract.encoders.models import Model, weight_files

# Parts that hidden states do not pass through, as components of a weight's name. A checkpoint may lack them, and
# what it has of them is not compared: heads, the other half of a model, masks of pretraining, counters.
UNUSED = frozenset(
    (
        *("lm_head", "classifier", "pooler", "cls", "predictions", "projector", "proj_out", "logit_scale"),
        *("decoder", "quantizer", "project_q", "project_hid", "masked_spec_embed", "mask_token", "position_ids"),
        *("text_model", "text_projection", "visual_projection"),
    )
)
NAMES_SHOWN = 6
SAMPLED_VALUES = 16


def load_network(model: Model) -> Any:
    """Load frozen float32 weights on the CPU, in evaluation mode.

    Raises:
        ValueError: the files cannot be loaded, leave parts of the model untrained, or hold weights that did not
            arrive in it.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    # A job has one bar, that of its clips; and what transformers would report is checked here, more strictly.
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        network, info = AutoModel.from_pretrained(model.folder, dtype=torch.float32, output_loading_info=True)
    # A dozen kinds of errors for damaged files, wrong shapes and missing packages.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"{model.folder}: transformers cannot load this model ({reason})") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if not is_unused(key))
    if missing:
        raise ValueError(
            f"{model.folder}: the checkpoint lacks {len(missing)} weights of the model, first {_shown(missing)}"
        )
    lost = lost_weights(model.folder, network)
    if lost:
        raise ValueError(
            f"{model.folder}: {len(lost)} weights of the checkpoint are not in the loaded model: {_shown(lost)}; "
            "this version of transformers drops them, or config.json describes another model"
        )
    return network.eval().requires_grad_(False)


def lost_weights(folder: Path, network: Any, unused: frozenset[str] = UNUSED) -> list[str]:
    """Names of the checkpoint's tensors that are not in the network, value for value.

    transformers reports keys that are missing or unexpected. It does not look at values, and said nothing of the
    attention biases that it loaded as zeros.

    A tensor whose name the network knows, with or without a prefix ("wav2vec2.", "model."), must be equal to it.
    Others are looked for by their values among those that no name has claimed: transformers renames weights as it
    loads them (weight_g to parametrizations.weight.original0, q_bias to query.bias, gamma to weight), and no table
    of its renames has to be kept here. Each tensor of the network is claimed once, so that one of zeros cannot
    stand in for another. If the file keeps the network below its base prefix, whatever lies outside is a head. Parts
    named in `unused` are not compared.
    """
    free = {key: tensor for key, tensor in network.state_dict().items() if not is_unused(key, unused)}
    lost, renamed = [], {}
    for name, tensor in _backbone_tensors(folder, f"{network.base_model_prefix}.", unused):
        key = next((key for key in (name, name.partition(".")[2]) if key in free), None)
        if key is None:
            renamed[name] = tensor
        elif not _equal(tensor, free.pop(key)):
            lost.append(name)
    by_sample: dict[Any, list[str]] = {}
    for key, tensor in free.items():
        by_sample.setdefault(_sample(tensor), []).append(key)
    lost += [name for name, tensor in renamed.items() if not _claim(tensor, free, by_sample)]
    return sorted(lost)


def is_unused(name: str, unused: frozenset[str] = UNUSED) -> bool:
    """Whether hidden states do not depend on this weight; `unused`: parts that they do not pass through."""
    return not unused.isdisjoint(name.split("."))


def image_processor(model: Model) -> Any:
    """The model's own image processor on its PIL backend, which needs no torchvision.

    Raises:
        ValueError: the folder has none.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(model.folder, backend="pil")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model.folder}: no image processor; add its preprocessor_config.json ({reason})") from error


def multiply_exactly() -> None:
    """Have GPUs multiply float32 in float32. From Ampere on convolutions round to TF32's 10 bits unless told otherwise.

    Rows would be off by about 1e-3 and still be called exact. These are settings of the process; a CPU does not care.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def rank_device() -> torch.device:
    """This rank's GPU (`LOCAL_RANK` mod the number of GPUs), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _backbone_tensors(folder: Path, prefix: str, unused: frozenset[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """What the hidden states depend on; one tensor in memory at a time where the format allows it."""
    files = [_open(path) for path in weight_files(str(folder), folder)]
    prefixed = any(name.startswith(prefix) for file in files for name in file)
    for file in files:
        for name in file:
            if (name.startswith(prefix) or not prefixed) and not is_unused(name, unused):
                yield name, file[name]


class _Safetensors(Mapping[str, torch.Tensor]):
    """The tensors of a file by name, read when asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file: Any = safe_open(str(path), framework="pt")

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


def _open(path: Path) -> Mapping[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return _Safetensors(path)
    # Files from before torch 1.6 are no archives: they are read whole.
    archive = zipfile.is_zipfile(path)
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", mmap=archive, weights_only=True)
    return tensors


def _equal(stored: torch.Tensor, loaded: torch.Tensor) -> bool:
    return stored.shape == loaded.shape and torch.equal(stored.to(loaded.dtype), loaded)


def _sample(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Shape and a few values: equal tensors agree in it, others hardly ever."""
    flat = tensor.detach().reshape(-1)
    return (*tensor.shape, *flat[:: max(1, len(flat) // SAMPLED_VALUES)].float().tolist())


def _claim(tensor: torch.Tensor, free: dict[str, torch.Tensor], by_sample: Mapping[Any, list[str]]) -> bool:
    for key in by_sample.get(_sample(tensor), []):
        if key in free and _equal(tensor, free[key]):
            del free[key]
            return True
    return False


def _shown(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
