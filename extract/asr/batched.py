"""Whisper through transformers' generation: many windows at a time, with word times and confidences.

What is heard in a clip depends on that clip alone. Its spectrogram is computed alone; a batch always has the same
shape, and what is missing is filled with silence; words are timed by a second pass of the decoder over the finished
text, in which no token sees a later one. Windows follow each other as in OpenAI's program, each with the text before
it as a prompt; windows share a batch if their prompts are equally long, and first windows have none.

Letters: B windows, T samples, M mel bands, N frames or positions, L tokens, D width, H heads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cache.media import SAMPLE_RATE_HZ
from extract.asr.loading import Whisper
from extract.asr.openai import FUSED, quiet
from extract.asr.transcript import NoRoom, Transcript, Waveform
from extract.asr.window.decoded import FRAMES_PER_TIME, Guard, Segment, segments
from extract.asr.window.spectrogram import HOP_T, log_mel, mel_filters
from extract.asr.window.words import Word, split_words, token_starts
from extract.encoders.loading import multiply_exactly

SECONDS_PER_POSITION = FRAMES_PER_TIME * HOP_T / SAMPLE_RATE_HZ
# Whisper's times may be off by as much: words are looked for in their segment and this far around it.
MARGIN_N = 25
GUARD = Guard()


@dataclass
class _Clip:
    """A clip on its way through its windows. `seek`: the frame where the next one begins."""

    mel_MN: torch.Tensor
    seek: int = 0
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    no_speech: float = math.nan

    @property
    def left(self) -> int:
        """Frames that were not heard."""
        return self.mel_MN.shape[1] - self.seek

    def transcript(self) -> Transcript:
        """What was heard in all windows."""
        confidence = float(np.mean([word["confidence"] for word in self.words])) if self.words else math.nan
        return Transcript(self.text.strip(), json.dumps(self.words), confidence, no_speech=self.no_speech)


@dataclass(frozen=True)
class _Written:
    """What the decoder wrote of a batch of windows.

    Attributes:
        tokens_BL: after the prompt.
        log_probability_BL: of each of them, among those that were allowed.
        no_speech_B: probability that nobody speaks.
        attention_BHLN: before its softmax, from the step that chose the token.
    """

    tokens_BL: torch.Tensor
    log_probability_BL: torch.Tensor
    no_speech_B: torch.Tensor
    attention_BHLN: torch.Tensor


class Batched:
    """Whisper of transformers on windows of 30 s, `batch_size` at a time; greedy and deterministic."""

    def __init__(
        self,
        whisper: Whisper,
        language: str,
        device: torch.device,
        batch_size: int,
        precision: str = "float32",
        guard: Guard = GUARD,
    ) -> None:
        """Put a loaded Whisper to use.

        Raises:
            ValueError: it does not know the language.
        """
        self.whisper, self.device, self.batch_size, self.guard = whisper, device, batch_size, guard
        self.language = whisper.language_code(language)
        self.task = whisper.task(self.language)
        self.dtype = {"float32": torch.float32, "float16": torch.float16}[precision]
        multiply_exactly()
        self.network = whisper.network.to(device=device, dtype=self.dtype)
        self.filters_MF = mel_filters(self.network.config.num_mel_bins, device)
        self.window_N = FRAMES_PER_TIME * self.network.config.max_source_positions

    def hear(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """What is said in each clip.

        Raises:
            NoRoom: a batch does not fit into the device's memory.
            ValueError: samples that are no numbers.
        """
        if not all(np.isfinite(waveform_T).all() for waveform_T in waveforms):
            raise ValueError("samples that are not finite")
        try:
            with torch.inference_mode(), quiet():
                return self._heard(waveforms)
        except torch.OutOfMemoryError as error:
            raise NoRoom(f"{self.device} has no room for asr.batch_size={self.batch_size}; halve it") from error

    def _heard(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        sounds = [torch.from_numpy(np.ascontiguousarray(waveform_T)).to(self.device) for waveform_T in waveforms]
        clips = [_Clip(log_mel(sound_T, self.filters_MF)) for sound_T in sounds]
        while waiting := [clip for clip in clips if clip.left > 0]:
            by_length: dict[int, list[_Clip]] = {}
            for clip in waiting:
                by_length.setdefault(len(self._prompt(clip)), []).append(clip)
            for alike in by_length.values():
                for first in range(0, len(alike), self.batch_size):
                    self._hear_windows(alike[first : first + self.batch_size])
        return [clip.transcript() for clip in clips]

    def _hear_windows(self, clips: Sequence[_Clip]) -> None:
        features_BMN = self.filters_MF.new_zeros(self.batch_size, len(self.filters_MF), self.window_N)
        for window_MN, clip in zip(features_BMN, clips, strict=False):
            own_MN = clip.mel_MN[:, clip.seek : clip.seek + self.window_N]
            window_MN[:, : own_MN.shape[1]] = own_MN
        # Silence that fills a batch up is told what the first clip is told.
        fill = [clips[0]] * (self.batch_size - len(clips))
        prompt_BL = torch.tensor([self._prompt(clip) for clip in (*clips, *fill)], device=self.device)
        written = self._written(features_BMN.to(self.dtype), prompt_BL)
        for row, clip in enumerate(clips):
            self._take(clip, written, row)

    def _prompt(self, clip: _Clip) -> list[int]:
        """What the decoder is told before it writes: the text before the window, as much as has room, and the task."""
        before = clip.tokens[-(self.network.config.max_target_positions // 2 - 1) :]
        return [*([self.whisper.settings.prev_sot_token_id, *before] if before else []), *self.task]

    def _written(self, features_BMN: torch.Tensor, prompt_BL: torch.Tensor) -> _Written:
        from transformers.modeling_outputs import BaseModelOutput

        network, settings = self.network, self.whisper.settings
        states = BaseModelOutput(network.get_encoder()(features_BMN).last_hidden_state)
        prompt, positions = prompt_BL.shape[1], network.config.max_target_positions
        rules, chosen = self.whisper.rules(prompt, self.device)
        tokens_BL = network.generate(
            encoder_outputs=states,
            decoder_input_ids=prompt_BL,
            logits_processor=rules,
            # The rules have those of times; transformers' own would come before them.
            return_timestamps=False,
            # One window: what follows it is decided here.
            force_unique_generate_call=True,
            max_new_tokens=min(positions // 2, positions - prompt),
            do_sample=False,
            num_beams=1,
            # Said again: else transformers would have the language guessed, and not use the guess.
            **({"language": self.language, "task": "transcribe"} if self.whisper.is_multilingual else {}),
        )
        # The decoder's attention is returned by transformers' plain implementation alone.
        network.set_attn_implementation("eager")
        try:
            again = network.model(
                encoder_outputs=states, decoder_input_ids=tokens_BL[:, :-1], output_attentions=True, use_cache=False
            )
        finally:
            network.set_attn_implementation(FUSED)
        start_BD = again.last_hidden_state[:, prompt - len(self.task)]
        no_speech_B = network.proj_out(start_BD).float().softmax(-1)[:, settings.no_timestamps_token_id - 1]
        heads = [again.cross_attentions[layer][:, head] for layer, head in settings.alignment_heads]
        attention_BHLN = torch.stack(heads, 1)[:, :, prompt - 1 :].float()
        tiny = torch.finfo(self.dtype).tiny
        return _Written(
            tokens_BL[:, prompt:].cpu(),
            torch.stack(chosen.log_probabilities, 1).cpu(),
            no_speech_B.cpu(),
            attention_BHLN.clamp(min=tiny).log().cpu(),
        )

    def _take(self, clip: _Clip, written: _Written, row: int) -> None:
        """Add a window to what was heard of its clip, and move on."""
        settings, no_speech = self.whisper.settings, float(written.no_speech_B[row])
        clip.no_speech = no_speech if math.isnan(clip.no_speech) else max(clip.no_speech, no_speech)
        tokens = written.tokens_BL[row].tolist()
        length = tokens.index(settings.eos_token_id) if settings.eos_token_id in tokens else len(tokens)
        chances_L = written.log_probability_BL[row]
        frames = min(self.window_N, clip.left)
        found, advance = segments(tokens[:length], settings.no_timestamps_token_id + 1, frames)
        texts = [self._text(tokens[segment.first : segment.end]) for segment in found]
        sure = float(chances_L[: length + 1].sum()) / (length + 1)
        if self.guard.refuses(no_speech, sure):
            clip.seek += frames
            return
        for segment, text in zip(found, texts, strict=True):
            if text.strip():
                clip.text += text
                clip.tokens += tokens[segment.first : segment.end]
                attention_HLN = written.attention_BHLN[row, :, segment.first : segment.end]
                clip.words += self._words(clip, segment, tokens, chances_L, attention_HLN)
        clip.seek += advance

    def _words(
        self, clip: _Clip, segment: Segment, tokens: Sequence[int], chances_L: torch.Tensor, attention_HLN: torch.Tensor
    ) -> list[dict[str, Any]]:
        """The words of a segment, with times from the beginning of the clip."""
        begin_N, end_N = self._stretch(clip, tokens[segment.first : segment.end])
        starts_L = begin_N + token_starts(attention_HLN[..., begin_N:end_N])
        text = [place for place in range(segment.first, segment.end) if self._is_text(tokens[place])]
        found = split_words([tokens[place] for place in text], self.whisper.decode, self.language)
        seek_seconds = clip.seek * HOP_T / SAMPLE_RATE_HZ

        def seconds(place: int) -> float:
            position = starts_L[place - segment.first] if place < segment.end else end_N
            return round(seek_seconds + float(position) * SECONDS_PER_POSITION, 3)

        def entry(word: Word) -> dict[str, Any]:
            first, spoken = text[word.first], text[word.spoken]
            sure = float(chances_L[first : spoken + 1].mean().exp())
            times = {"start_seconds": seconds(first), "end_seconds": seconds(spoken + 1)}
            return {"text": word.text, **times, "confidence": round(sure, 3)}

        return [entry(word) for word in found]

    def _stretch(self, clip: _Clip, tokens: Sequence[int]) -> tuple[int, int]:
        """Where a segment's words are looked for: around the times that Whisper gave, within the clip."""
        first_time = self.whisper.settings.no_timestamps_token_id + 1
        last_N = max(1, -(-min(self.window_N, clip.left) // FRAMES_PER_TIME))
        times = [token - first_time for token in tokens if token >= first_time]
        begin_N = max(0, times[0] - MARGIN_N) if times else 0
        end_N = min(last_N, times[-1] + MARGIN_N) if len(times) > 1 else last_N
        return (begin_N, end_N) if end_N - begin_N >= len(tokens) else (0, last_N)

    def _is_text(self, token: int) -> bool:
        return token < int(self.whisper.settings.eos_token_id)

    def _text(self, tokens: Sequence[int]) -> str:
        return self.whisper.decode([token for token in tokens if self._is_text(token)])
