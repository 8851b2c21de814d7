"""Encoders of text.

Shape letters: B texts, N tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from extract.encoders.base import NetworkEncoder
from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.preparer import Inputs, Preparer

# Models that number positions from the padding token's id plus one: they place fewer tokens than they have positions.
NUMBERED_FROM_PADDING = frozenset(("roberta", "xlm-roberta", "camembert", "mpnet"))


class TextPreparer(Preparer):
    """A tokenizer. All tokens of the text count, those that mark its start and end included.

    Longer texts are cut where the model ends.
    """

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the tokenizer."""
        from transformers import AutoTokenizer

        super().__init__(model, options)
        self.tokenizer = AutoTokenizer.from_pretrained(model.folder)
        self.longest_N = min(_positions(model), int(self.tokenizer.model_max_length))

    def batch_key(self, signal: str) -> Hashable:
        """Number of tokens: nothing is padded."""
        return len(self.tokenizer(signal, truncation=True, max_length=self.longest_N).input_ids)

    def inputs(self, signals: Sequence[str]) -> Inputs:
        """Texts; shorter ones are padded and masked, which stage one never asks for."""
        settings = {"padding": True, "truncation": True, "max_length": self.longest_N, "return_tensors": "pt"}
        return dict(self.tokenizer(list(signals), **settings))


class TextEncoder(NetworkEncoder):
    """BERT (Devlin et al. 2019, arXiv 1810.04805) and its kin; distilroberta by default (arXiv 1910.01108)."""

    poolings = ("mean", "mean_std", "last", "cls")
    preparer_class = TextPreparer

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


def _positions(model: Model) -> int:
    """How many tokens the model can place."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.folder)
    if model.model_type not in NUMBERED_FROM_PADDING:
        return int(config.max_position_embeddings)
    # MPNet's padding is token 1 whatever its configuration says.
    padding = 1 if model.model_type == "mpnet" else int(config.pad_token_id)
    return int(config.max_position_embeddings) - padding - 1
