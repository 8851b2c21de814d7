"""Whisper's log-mel spectrogram, of one clip at a time and on the device: it depends on nothing but the clip.

Letters: T samples, M mel bands, F frequencies, N frames of 10 ms.
"""

from __future__ import annotations

from typing import Any

import torch

from cache.media import SAMPLE_RATE_HZ

# Whisper's own, for all its sizes.
FFT_T, HOP_T = 400, 160
HIGHEST_HZ, LEAST_POWER, RANGE = 8000.0, 1e-10, 8.0


def mel_filters(bands: int, device: torch.device) -> torch.Tensor:
    """Mel filters, (M, F)."""
    from transformers.audio_utils import mel_filter_bank

    filters_FM: Any = mel_filter_bank(
        1 + FFT_T // 2, bands, 0.0, HIGHEST_HZ, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters_FM).to(device, torch.float32).T.contiguous()


def log_mel(waveform_T: torch.Tensor, filters_MF: torch.Tensor) -> torch.Tensor:
    """The clip's own frames, (M, T // 160), as OpenAI's program computes them (Radford et al. 2022, arXiv 2212.04356).

    Levels below the loudest one minus 8 (a factor of 10^8) are cut there. What follows the clip in its window is
    zero, as there, and not the spectrogram of silence.
    """
    padded_T = torch.nn.functional.pad(waveform_T, (0, FFT_T))
    window_T = torch.hann_window(FFT_T, device=waveform_T.device)
    spectrum_FN = torch.stft(padded_T, FFT_T, HOP_T, window=window_T, return_complex=True)
    power_FN = spectrum_FN[:, : len(waveform_T) // HOP_T].abs() ** 2
    levels_MN = torch.clamp(filters_MF @ power_FN, min=LEAST_POWER).log10()
    return (torch.maximum(levels_MN, levels_MN.max() - RANGE) + 4.0) / 4.0
