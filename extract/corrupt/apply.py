"""A condition applied to decoded media: one signal is changed, the other passed on."""

from __future__ import annotations

from cache.conditions import CLEAN, Condition
from cache.media import Media
from extract.corrupt.noise.sources import RECORDED, NoiseSources
from extract.corrupt.picture.effects import PICTURE
from extract.corrupt.sound.effects import SOUND, add_noise
from extract.corrupt.sound.level import Waveform, speech_power


def corrupt(media: Media, condition: Condition, clip_id: str, noises: NoiseSources | None = None) -> Media:
    """The clip under `condition`; a signal it does not touch, or that is not there, is passed on.

    Args:
        media: as decoded; it is not modified.
        condition: what to do. Everything random follows from its seed and the clip's id.
        clip_id: which clip it is.
        noises: recordings to mix in, for `noise-babble` and `noise-file`.

    Raises:
        ValueError: one line: a silent clip has no signal-to-noise ratio, or the recordings are missing.
    """
    if condition.modality == "audio" and media.waveform_T is not None:
        return Media(_sound(media.waveform_T, condition, clip_id, noises), media.frames_THWC)
    if condition.modality == "video" and media.frames_THWC is not None:
        rng = condition.rng(clip_id)
        return Media(media.waveform_T, PICTURE[condition.kind](media.frames_THWC, condition.level, rng))
    assert condition.kind == CLEAN or condition.modality, condition
    return media


def _sound(waveform_T: Waveform, condition: Condition, clip_id: str, noises: NoiseSources | None) -> Waveform:
    rng = condition.rng(clip_id)
    if condition.kind not in RECORDED:
        return SOUND[condition.kind](waveform_T, condition.level, rng)
    if noises is None:
        raise ValueError(
            f"{condition.name} mixes in recordings, which only make features does; take noise-white or noise-pink here"
        )
    speech_power(waveform_T)
    return add_noise(waveform_T, noises.draw(condition.kind, len(waveform_T), rng, clip_id), condition.level)
