"""Words with times and confidences by whisper-timestamped, one clip at a time."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.files.lock import locked
from extract.asr.models import ENGLISH, asr_precision, english_only
from extract.asr.transcript import Transcript, Waveform

SECONDS_FOR_A_DOWNLOAD = 3600
SECONDS_WITHOUT_AN_ANSWER = 30


class Timestamped:
    """Whisper with word times (whisper-timestamped; Giorgino 2009 for the alignment); greedy and deterministic."""

    batch_size = 1

    def __init__(self, model: str, language: str, device: torch.device) -> None:
        """Load by Whisper name or checkpoint file.

        Raises:
            ValueError: it cannot be had, with how to name a file instead; or it does not know the language.
        """
        self.language = language
        self.no_speech: list[float] = []
        try:
            self.network = _load(model, device)
            self._listen_to_decoding()
            _fuse_encoder_attention(self.network)
        # Downloads fail in many ways, and so does reading a file that is no checkpoint.
        except Exception as error:
            raise ValueError(
                f"asr.model {model} could not be loaded ({type(error).__name__}: {str(error)[:120]}); "
                "give the path of a Whisper checkpoint (.pt), or asr.model=null to take the corpus's statement"
            ) from error
        if language.lower() not in ENGLISH and not self.network.is_multilingual:
            raise ValueError(english_only(model, language))

    def hear(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """As in `Engine`: one clip after the other."""
        return [self._heard(waveform_T) for waveform_T in waveforms]

    def _heard(self, waveform_T: Waveform) -> Transcript:
        import whisper_timestamped

        samples_T = np.ascontiguousarray(waveform_T, np.float32)
        self.no_speech.clear()
        result = whisper_timestamped.transcribe(
            self.network,
            samples_T,
            language=self.language,
            temperature=0.0,
            verbose=None,
            fp16=asr_precision(self.network.device.type) == "float16",
        )
        words = [_word(word) for segment in result["segments"] for word in segment.get("words", [])]
        confidence = float(np.mean([word["confidence"] for word in words])) if words else math.nan
        text = str(result["text"]).strip()
        no_speech = max(self.no_speech, default=math.nan)
        return Transcript(text, json.dumps(words), confidence, no_speech=no_speech)

    def _listen_to_decoding(self) -> None:
        """Keep the no-speech probability of every window: Whisper drops it with the windows it takes for silence."""
        decode = self.network.decode

        def listening(*args: Any, **kwargs: Any) -> Any:
            result = decode(*args, **kwargs)
            self.no_speech.append(float(result.no_speech_prob))
            return result

        self.network.decode = listening


def _fuse_encoder_attention(network: Any) -> None:
    """Fused attention in the encoder, a third of the time saved. whisper-timestamped turns it off everywhere
    because it reads the decoder's attention weights; nobody reads the encoder's."""
    from whisper.model import MultiHeadAttention

    def fused(attention: Any) -> Any:
        plain = attention.qkv_attention

        def call(*tensors: Any) -> Any:
            before, MultiHeadAttention.use_sdpa = MultiHeadAttention.use_sdpa, True
            try:
                return plain(*tensors)
            finally:
                MultiHeadAttention.use_sdpa = before

        return call

    for block in network.encoder.blocks:
        block.attn.qkv_attention = fused(block.attn)


def _load(model: str, device: torch.device) -> Any:
    import whisper_timestamped

    path = Path(model).expanduser()
    if path.is_file():
        return whisper_timestamped.load_model(str(path), device=str(device))
    patience, downloads = socket.getdefaulttimeout(), Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "whisper")
    # Whisper downloads straight to the final place, and waits for ever: one rank at a time, and not for ever.
    with locked(downloads.expanduser(), SECONDS_FOR_A_DOWNLOAD):
        socket.setdefaulttimeout(SECONDS_WITHOUT_AN_ANSWER)
        try:
            return whisper_timestamped.load_model(model, device=str(device))
        finally:
            socket.setdefaulttimeout(patience)


def _word(word: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": word["text"],
        "start_seconds": round(float(word["start"]), 3),
        "end_seconds": round(float(word["end"]), 3),
        "confidence": float(word["confidence"]),
    }
