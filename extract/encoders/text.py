"""Encoders of text.

Shape letters: B texts, N tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from extract.encoders.base import NetworkEncoder
from extract.encoders.models import Model, check_preprocessing
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.preparer import Alone, Inputs, Preparer, Span, Window, Windows, spans

# Models that number positions from the padding token's id plus one: they place fewer tokens than they have positions.
NUMBERED_FROM_PADDING = frozenset(("roberta", "xlm-roberta", "camembert", "mpnet"))

# One and the same sentence. A tokenizer of any language or script knows a part of one of them.
PROBES = (
    "Kids are talking by the door",
    "Les enfants parlent près de la porte",
    "Дети разговаривают у двери",  # noqa: RUF001
    "الأطفال يتحدثون عند الباب",
    "बच्चे दरवाज़े के पास बात कर रहे हैं",
    "孩子们在门口说话",
    "子供たちがドアのそばで話している",
    "아이들이 문 옆에서 이야기하고 있다",
)


class TextPreparer(Preparer):
    """A tokenizer. All tokens of the text count, those that mark its start and end included.

    A text of more tokens than the model can place is cut into windows of as many, each of them between a mark of the
    start and one of the end. Fine-tuning, which asks for `inputs` alone, takes the first of them.
    """

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the tokenizer.

        Raises:
            ValueError: there is none, it cannot be read, or it is another model's.
        """
        super().__init__(model, options)
        self.tokenizer = load_tokenizer(model)
        self.longest_N = min(_positions(model), int(self.tokenizer.model_max_length))

    def batch_key(self, signal: str) -> Hashable:
        """Number of tokens: nothing is padded."""
        windows = self.windows(signal)
        return Alone(len(windows.parts)) if windows else len(self.tokenizer(signal).input_ids)

    def windows(self, signal: str) -> Windows | None:
        """Of a text of more than `longest_N` tokens: windows of that many."""
        whole = dict(self.tokenizer(signal, return_special_tokens_mask=True, verbose=False))
        marks = whole.pop("special_tokens_mask")
        if len(marks) <= self.longest_N:
            return None
        first, last = marks.index(0), len(marks) - marks[::-1].index(0)
        size = self.longest_N - first - (len(marks) - last)

        def part(span: Span) -> dict[str, list[int]]:
            inside = slice(first + span.start, first + span.end)
            return {name: values[:first] + values[inside] + values[last:] for name, values in whole.items()}

        return Windows(tuple(Window(part(span), span.new) for span in spans(last - first, size, size)))

    def prepare_windows(self, windows: Sequence[Window]) -> Inputs:
        """Of equal length: nothing is padded."""
        names = windows[0].signal
        return self._pinned({name: torch.tensor([one.signal[name] for one in windows]) for name in names})

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


def load_tokenizer(model: Model) -> Any:
    """The tokenizer of a folder, after proof that it knows words and that the network knows its tokens.

    Raises:
        ValueError: one line; nothing that it would make of a text could be trusted.
    """
    from transformers import AutoConfig, AutoTokenizer

    check_preprocessing("text", model)
    _require_sentencepiece(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.folder)
    # Damaged files and missing packages raise a dozen kinds of errors.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{model.folder}: transformers cannot load the tokenizer ({reason})") from error
    known, largest = AutoConfig.from_pretrained(model.folder).vocab_size, max(tokenizer.get_vocab().values())
    if largest >= known:
        raise ValueError(
            f"{model.folder}: the tokenizer has tokens up to number {largest}, the network's vocabulary ends at "
            f"{known - 1}; they are of different models"
        )
    empty = set(tokenizer.all_special_ids)
    if all(empty.issuperset(tokenizer(probe).input_ids) for probe in PROBES):
        raise ValueError(
            f"{model.folder}: the tokenizer knows no word of {len(PROBES)} languages; its files are damaged"
        )
    return tokenizer


def _require_sentencepiece(model: Model) -> None:
    if (model.folder / "tokenizer.json").exists() or not any(model.folder.glob("*.model")):
        return
    if missing := [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]:
        raise ValueError(
            f"{model.folder}: its tokenizer is a SentencePiece file, which needs {' and '.join(missing)}; "
            "run pip install -r requirements.txt in the environment"
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _positions(model: Model) -> int:
    """How many tokens the model can place."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.folder)
    if model.model_type not in NUMBERED_FROM_PADDING:
        return int(config.max_position_embeddings)
    # MPNet's padding is token 1 whatever its configuration says.
    padding = 1 if model.model_type == "mpnet" else int(config.pad_token_id)
    return int(config.max_position_embeddings) - padding - 1
