"""Encoders of text.

Shape letters: B texts, N tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from extract.encoders.base import DEFAULT, EncoderOptions, Inputs, NetworkEncoder
from extract.encoders.models import Model


class TextEncoder(NetworkEncoder):
    """BERT (Devlin et al. 2019, arXiv 1810.04805) and its kin; distilroberta by default (arXiv 1910.01108).

    All tokens of the text count, those that mark its start and end included. Longer texts are cut where the
    model ends.
    """

    poolings = ("mean", "mean_std", "last", "cls")

    def __init__(self, model: Model, device: torch.device, options: EncoderOptions = DEFAULT) -> None:
        """Load the model and its tokenizer."""
        from transformers import AutoTokenizer

        super().__init__(model, device, options)
        self.tokenizer = AutoTokenizer.from_pretrained(model.folder)
        self.longest = min(_positions(self.network), int(self.tokenizer.model_max_length))

    def batch_key(self, signal: str) -> Hashable:
        """Number of tokens: nothing is padded."""
        return len(self.tokenizer(signal, truncation=True, max_length=self.longest).input_ids)

    def inputs(self, signals: Sequence[str]) -> Inputs:
        """Texts; shorter ones are padded and masked, which stage one never asks for."""
        settings = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        return dict(self.tokenizer(list(signals), **settings))

    def own_tokens(self, inputs: Inputs) -> list[slice] | None:
        """What the attention mask does not hide."""
        mask_BN = inputs["attention_mask"]
        counts = mask_BN.sum(1).tolist()
        if min(counts) == mask_BN.shape[1]:
            return None
        starts = mask_BN.argmax(1).tolist()
        return [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]


class SharedBlockEncoder(TextEncoder):
    """ALBERT (Lan et al. 2020, arXiv 1909.11942): one block, or a few, applied again and again."""

    def find_blocks(self) -> torch.nn.ModuleList:
        """The block that makes each hidden state; the same one may come several times."""
        groups, count = self.network.encoder.albert_layer_groups, self.model.layers - 1
        return torch.nn.ModuleList([groups[block * len(groups) // count] for block in range(count)])


def _positions(network: Any) -> int:
    """How many tokens the model can place. RoBERTa's kin number them from the padding token's id plus one."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return int(network.config.max_position_embeddings)
