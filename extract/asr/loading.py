"""Whisper for transformers, from a folder of its own kind or from OpenAI's checkpoint file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extract.asr.models import ENGLISH, english_only
from extract.asr.openai import FUSED, TIED, Refused, from_openai, quiet, upper_heads
from extract.encoders.loading import lost_weights

# The second is of no effect: a window begins with a time.
SUPPRESSED, SUPPRESSED_AT_FIRST = "suppress_tokens", "begin_suppress_tokens"


@dataclass(frozen=True)
class Whisper:
    """A loaded network in float32, and its tokenizer.

    Attributes:
        suppressed: tokens that are never written, or never at first, by transformers' names of the two; they are taken
            out of the network's own settings, which would suppress them once more.
    """

    name: str
    network: Any
    tokenizer: Any
    suppressed: Mapping[str, Sequence[int]]

    @property
    def settings(self) -> Any:
        """Numbers of its tokens, and the heads that follow speech."""
        return self.network.generation_config

    @property
    def is_multilingual(self) -> bool:
        """Whether it is told a language."""
        return bool(getattr(self.settings, "is_multilingual", False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens of text to text."""
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def language_code(self, language: str) -> str:
        """Its code for a language, given by code or name.

        Raises:
            ValueError: it does not know it.
        """
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        if not self.is_multilingual and language.lower() not in ENGLISH:
            raise ValueError(english_only(self.name, language))
        code = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
        if self.is_multilingual and f"<|{code}|>" not in self.settings.lang_to_id:
            raise ValueError(f"asr.language={language}: {self.name} does not know it; give a code such as en")
        return str(code)

    def task(self, language: str) -> list[int]:
        """Tokens that tell it to transcribe a language, given by code."""
        start = [int(self.settings.decoder_start_token_id)]
        if not self.is_multilingual:
            return start
        return [*start, self.settings.lang_to_id[f"<|{language}|>"], self.settings.task_to_id["transcribe"]]

    def rules(self, prompt: int, device: torch.device) -> tuple[list[Any], Listener]:
        """What is applied to the scores of every step, in this order, and the last of it, which takes notes.

        Args:
            prompt: tokens that the decoder is given.
            device: where scores are.
        """
        from transformers import WhisperTimeStampLogitsProcessor

        listener, times = Listener(), WhisperTimeStampLogitsProcessor(self.settings, begin_index=prompt)
        return [
            Suppressing(self.suppressed[SUPPRESSED], self.network.config.vocab_size, device),
            times,
            listener,
        ], listener


class Suppressing:
    """Scores without tokens that are never written. transformers' own looks them up anew at every step, which takes a
    tenth of the time of a clip on a CPU."""

    def __init__(self, tokens: Sequence[int], vocabulary: int, device: torch.device) -> None:
        """`tokens`: their numbers; `vocabulary`: how many there are in all."""
        self._penalty_V = torch.zeros(vocabulary, device=device)
        self._penalty_V[list(tokens)] = -torch.inf

    def __call__(self, _: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """As transformers calls it."""
        return scores_BV + self._penalty_V.to(scores_BV.dtype)


class Listener:
    """Notes the log probability of the token that is chosen at each step, among those that are allowed."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.log_probabilities: list[torch.Tensor] = []

    def __call__(self, _: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """As transformers calls it; nothing is changed."""
        self.log_probabilities.append(scores_BV.float().log_softmax(-1).amax(-1))
        return scores_BV


def load_whisper(source: Path) -> Whisper:
    """Load from a folder of transformers, or from OpenAI's checkpoint file.

    Raises:
        ValueError: it cannot be loaded, is no Whisper, or weights of the file did not arrive.
    """
    try:
        with quiet():
            network, tokenizer = from_openai(source) if source.is_file() else _from_folder(source)
    except Refused:
        raise
    # A dozen kinds of errors for files that are damaged, or hold something else.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"asr.model {source} could not be loaded ({reason}); give a folder of a Whisper, a Whisper checkpoint "
            "(.pt), or asr.model=null to take the corpus's statement"
        ) from error
    settings = network.generation_config
    suppressed = {name: getattr(settings, name, None) or () for name in (SUPPRESSED, SUPPRESSED_AT_FIRST)}
    for name in suppressed:
        setattr(settings, name, None)
    return Whisper(str(source), network.eval().requires_grad_(False), tokenizer, suppressed)


def _from_folder(folder: Path) -> tuple[Any, Any]:
    from transformers import WhisperForConditionalGeneration, WhisperTokenizer

    network, info = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=FUSED, output_loading_info=True
    )
    missing = [name for name in info["missing_keys"] if name != TIED]
    lost = lost_weights(folder, network, unused=frozenset(("proj_out",)))
    if missing or lost:
        raise Refused(f"asr.model {folder} lacks weights of a whole Whisper: {', '.join([*missing, *lost][:3])}")
    settings = network.generation_config
    if not hasattr(settings, "no_timestamps_token_id"):
        raise Refused(f"asr.model {folder}: no times in its generation_config.json; copy that of openai/whisper-*")
    if not getattr(settings, "alignment_heads", None):
        settings.alignment_heads = upper_heads(network.config.decoder_layers, network.config.decoder_attention_heads)
    return network, WhisperTokenizer.from_pretrained(folder)
