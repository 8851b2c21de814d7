"""Encoders and fusion head as one network: from prepared media to logits.

Shape letters: B clips, L layers, D width, K logits that are taught side by side, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cache.features.table import Layers, layer_numbers, layers_of, side_by_side
from extract.encoders.base import NetworkEncoder, at_least_float32
from extract.encoders.convolutions import convolve_in_float32
from extract.encoders.preparer import Inputs
from fuse.finetune.inputs.batches import Groups
from fuse.model.fusion import FusionModel

Unfreeze = int | str


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters and how they are drawn, as in `configs.schema.finetune.Lora`."""

    rank: int
    alpha: int
    dropout: float
    seed: int


class Answers(NamedTuple):
    """Of a batch: the decision, and the logits that learn, as in `fuse.model.heads.base.Outputs`."""

    logits_BC: Tensor
    taught_BKC: Tensor


class EndToEndModel(nn.Module):
    """What stage one and stage two do, in one differentiable pass.

    Encoders run under `dtype` (mixed precision); pooled features and the head stay in float32.
    """

    def __init__(
        self,
        encoders: Mapping[str, NetworkEncoder],
        fusion: FusionModel,
        layers: Layers | Mapping[str, Layers],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`encoders` and `layers` by modality, as `fusion` was trained on; nothing of the encoders learns yet."""
        super().__init__()
        self.encoders = {name: encoders[name] for name in fusion.widths}
        self.networks = nn.ModuleDict({name: encoder.network for name, encoder in self.encoders.items()})
        self.fusion = fusion
        self.dtype = dtype
        self.layers = {
            name: layer_numbers(layers_of(name, layers), 1 + len(encoder.blocks))
            for name, encoder in self.encoders.items()
        }
        self.joined = {name: side_by_side(layers_of(name, layers)) for name in self.encoders}
        self.trained: dict[str, list[nn.Module]] = {name: [] for name in self.encoders}
        self._adapted: dict[str, Any] = {}
        for encoder in self.encoders.values():
            _switch_off_masking(encoder.network)
            if dtype == torch.bfloat16 and encoder.device.type == "cpu":
                convolve_in_float32(encoder.network)

    def unfreeze(self, name: str, how: Unfreeze, *, front_end: bool = False, adapters: Adapters | None = None) -> None:
        """Let an encoder learn: `all` of its weights, `none`, its `norms`, or its last so many blocks.

        An encoder with fewer blocks than that is trained in all of its blocks.

        Args:
            name: the modality.
            how: what learns.
            front_end: the convolutions of wav2vec 2.0 and its kin too; else they stay as they are.
            adapters: these learn in the place of the weights of the blocks' linear layers.
        """
        encoder = self.encoders[name]
        network, blocks = encoder.network, list(encoder.blocks)
        if not front_end and hasattr(network, "freeze_feature_encoder"):
            network.freeze_feature_encoder()
        if how in ("none", 0):
            return
        kept = {id(one) for one in _front_end(network)} if not front_end else set()
        if adapters is not None:
            chosen = blocks if how == "all" else blocks[max(0, len(blocks) - int(how)) :]
            self._adapted[name] = adapted(network, chosen, adapters)
            self.trained[name] = chosen
        elif how == "norms":
            self.trained[name] = [one for one in network.modules() if _is_norm(one) and id(one) not in kept]
        elif how == "all":
            self.trained[name] = [network]
        else:
            self.trained[name] = blocks[max(0, len(blocks) - int(how)) :]
        if adapters is None:
            for module in self.trained[name]:
                module.requires_grad_(True)
            for module in _front_end(network) if kept else ():
                module.requires_grad_(False)

    def merge_adapters(self) -> None:
        """Adapters become part of the weights, and the encoders are plain again."""
        for tuner in self._adapted.values():
            tuner.merge_and_unload()
        self._adapted = {}

    def train(self, mode: bool = True) -> EndToEndModel:
        """Training mode for the head and what is trained of the encoders; frozen parts keep dropout off."""
        super().train(mode)
        for name, network in self.networks.items():
            network.eval()
            for module in self.trained[name]:
                module.train(mode)
        return self

    def forward(self, inputs: Mapping[str, Inputs | Groups], present: Mapping[str, Tensor]) -> Answers:
        """Decide on a batch.

        Args:
            inputs: by modality, as in `fuse.finetune.inputs.batches.Batch`; any finite stand-in for absent clips.
            present: by modality, whether the clip has it, of shape (B,).
        """
        rows, broken_B = {}, torch.zeros_like(next(iter(present.values())))
        for name in self.encoders:
            row_BD, present_B = self.row(name, inputs[name]), present[name]
            broken_B = broken_B | (present_B & ~torch.isfinite(row_BD).all(dim=1))
            # `where` gives stand-ins a gradient of exactly zero, and every rank a gradient for every weight.
            rows[name] = torch.where(present_B[:, None], row_BD, torch.nan)
        outputs = self.fusion.outputs(rows)
        # The standardiser reads NaN as "absent"; an encoder that overflowed must not pass for that.
        logits_BC = outputs.logits_MBC[0].masked_fill(broken_B[:, None], torch.nan)
        return Answers(logits_BC, outputs.taught_MBKC[0].masked_fill(broken_B[:, None, None], torch.nan))

    def row(self, name: str, inputs: Inputs | Groups) -> Tensor:
        """What one encoder makes of clips, as the head takes it: (B, D)."""
        if isinstance(inputs, Groups):
            return torch.cat([self.row(name, part) for part in inputs.parts])[inputs.order_B]
        layers, first = self.layers[name], min(self.layers[name])
        device = next(iter(inputs.values())).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            # Only the layers in use: a slice of them all would send zeros, not nothing, back to the others.
            hidden_BLD = self.encoders[name].hidden(inputs, slice(first, max(layers) + 1))
        if self.joined[name]:
            return torch.cat([at_least_float32(hidden_BLD[:, layer - first]) for layer in layers], dim=1)
        return at_least_float32(hidden_BLD).mean(dim=1)


def encoder_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The precision encoders run in on this device.

    Raises:
        ValueError: the device does not have it.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if _has_bfloat16(device) else torch.float16
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision=float16 needs a GPU; set precision=auto")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise ValueError("precision=bfloat16: this GPU does not have it; set precision=auto")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[precision]


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)


def checkpoint_gradients(model: EndToEndModel) -> None:
    """Keep block inputs only and compute the rest again on the way back: less memory, more time."""
    for encoder in model.encoders.values():
        encoder.network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def loss_of(taught_BKC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, averaged over clips and the logits that are taught: what stage two minimises.

    In late fusion each modality's own logits are among these, and its encoder learns from them alone.
    """
    labels_n = labels_B.repeat_interleave(taught_BKC.shape[1])
    return cross_entropy(taught_BKC.flatten(0, 1), labels_n, label_smoothing=smoothing)


def freeze_unused(
    model: EndToEndModel, inputs: Mapping[str, Inputs | Groups], present: Mapping[str, Tensor]
) -> list[str]:
    """Freeze weights that the loss does not depend on, found by one backward pass; returns their names.

    Mask embeddings, poolers and blocks past the last layer in use: DistributedDataParallel would wait for
    their gradients for ever.
    """
    with torch.random.fork_rng(devices=[]):
        torch.nan_to_num(model(inputs, present).taught_BKC).sum().backward()  # type: ignore[no-untyped-call]
    unused = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and name not in unused)
    model.zero_grad(set_to_none=True)
    return unused


def refuse_idle_encoders(model: EndToEndModel, unfreeze: Mapping[str, Unfreeze]) -> None:
    """Refuse a fine-tune that would leave an encoder as it is, though it was asked to train it.

    Raises:
        ValueError: no weight of an encoder learns; says why and what would do.
    """
    for name, network in model.networks.items():
        how = unfreeze[name]
        if how in ("none", 0) or any(weight.requires_grad for weight in network.parameters()):
            continue
        last, blocks = max(model.layers[name]), len(model.encoders[name].blocks)
        enough = f"unfreeze={blocks - last + 1} or more, " if last else ""
        raise ValueError(
            f"unfreeze={how}: nothing of the {name} encoder would learn, because the run uses no layer of it "
            f"after layer {last} of {blocks}; set {enough}unfreeze=all, or unfreeze=none to train the head alone"
        )


def adapted(network: nn.Module, blocks: Sequence[nn.Module], adapters: Adapters) -> Any:
    """Put adapters beside the linear layers of these blocks; returns what merges them (`peft.LoraModel`)."""
    from peft import LoraConfig, LoraModel

    inside = {id(module) for block in blocks for module in block.modules() if isinstance(module, nn.Linear)}
    targets = [name for name, module in network.named_modules() if id(module) in inside]
    config = LoraConfig(
        r=adapters.rank, lora_alpha=adapters.alpha, lora_dropout=adapters.dropout, target_modules=targets
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapters.seed)
        return LoraModel(network, config, "default")


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith(("Norm", "NormBase", "LayerNorm"))


def _front_end(network: nn.Module) -> list[nn.Module]:
    """The convolutions that make tokens of a waveform; none in other encoders."""
    convolutions = getattr(network, "feature_extractor", None)
    return list(convolutions.modules()) if isinstance(convolutions, nn.Module) else []


def _switch_off_masking(network: Any) -> None:
    """The library's own SpecAugment and layerdrop off: they draw by batch, and a skipped layer has no gradient."""
    for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0), ("encoder_layerdrop", 0.0)):
        if hasattr(network.config, name):
            setattr(network.config, name, value)
    if hasattr(network, "layerdrop"):
        network.layerdrop = 0.0
