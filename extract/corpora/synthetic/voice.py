"""Synthetic voices for the demo corpus: a small source-filter (formant) synthesiser with emotional prosody.

A glottal pulse train and noise pass through moving resonators, as in Klatt, "Software for a
cascade/parallel formant synthesizer", JASA 67(3), 1980. What each emotion does to pitch, loudness, tempo
and timbre follows the cue table of Juslin & Laukka, "Communication of emotions in vocal expression and
music performance", Psychological Bulletin 129(5), 2003 (anger, fear, happiness, sadness; tenderness for
calm), and Banse & Scherer, JPSP 70(3), 1996, for disgust and surprise.

Shape suffixes: T samples, C control points (400 per second), P pitch periods.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, fftconvolve, lfilter, resample_poly, sosfilt

from cache.corpus.ravdess import STATEMENTS

Array = npt.NDArray[np.float64]

SAMPLE_RATE_HZ = 48_000
CONTROL_HZ = 400

_RATE_HZ = 24_000  # the formants are filtered here; the pulses are drawn finer, so that they do not alias
_OVERSAMPLING = 4
_STEP = _RATE_HZ // CONTROL_HZ  # samples per control point
_UPPER_FORMANTS_HZ = (3500.0, 4500.0, 5500.0, 6500.0, 7500.0, 8500.0, 9500.0, 10500.0)
_BANDWIDTHS_HZ = (70.0, 95.0, 140.0)


@dataclass(frozen=True)
class Voice:
    """A speaker's voice and habits. Ratios multiply the average adult male's formants."""

    pitch_hz: float
    tract: float
    tempo: float
    breath: float
    tilt_db: float
    expression: float
    habit: Prosody


@dataclass(frozen=True)
class Prosody:
    """How an emotion departs from a neutral voice; every field is 0 for neutral.

    Attributes:
        pitch: mean pitch, semitones.
        span: change of the accents' pitch excursion, as a part of the neutral one.
        ending: pitch at the end of the sentence, semitones.
        tempo: change of speech rate, as a part of it.
        level: loudness, dB.
        stress: extra loudness of stressed syllables, dB.
        tilt: loss of high frequencies, dB at 3 kHz; negative is a pressed, bright voice.
        breath: aspiration noise, as a part of the glottal source.
        tremor: depth of the 5 to 7 Hz pitch tremor, semitones.
        jitter: irregularity of the pitch periods, as a part of the period.
        formants: shift of all formants, as a part of them (a smile shortens the vocal tract).
        decay: fall of loudness over the sentence, dB.
        pause: silence between words, seconds.
    """

    pitch: float = 0.0
    span: float = 0.0
    ending: float = 0.0
    tempo: float = 0.0
    level: float = 0.0
    stress: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0
    tremor: float = 0.0
    jitter: float = 0.0
    formants: float = 0.0
    decay: float = 0.0
    pause: float = 0.0


_FIELDS = tuple(field.name for field in fields(Prosody))
# Columns in the order of the fields: pitch, span, ending, tempo, level, stress, tilt, breath, tremor, jitter, ...
PROSODY = {
    "neutral": Prosody(),
    "calm": Prosody(-1.5, -0.35, -1.0, -0.12, -5.0, -2.5, 5.0, 0.05, 0.0, 0.0, -0.01, 1.0, 0.02),
    "happy": Prosody(5.0, 0.9, 2.0, 0.08, 5.0, 3.0, -4.5, 0.0, 0.0, 0.0, 0.05, -3.0, 0.01),
    "sad": Prosody(0.5, -0.5, -2.0, -0.20, -9.0, -2.0, 9.0, 0.10, 0.45, 0.012, -0.02, 8.0, 0.05),
    "angry": Prosody(4.5, 0.5, -1.0, 0.12, 11.0, 7.0, -9.0, -0.01, 0.0, 0.02, 0.015, -1.0, 0.02),
    "fearful": Prosody(7.5, -0.2, 2.5, 0.22, 1.0, -1.5, 1.0, 0.08, 0.8, 0.015, 0.02, -1.0, 0.0),
    "disgust": Prosody(-1.5, 0.15, -3.0, -0.16, 0.5, 6.0, -2.0, 0.01, 0.0, 0.035, -0.05, 5.0, 0.04),
    "surprised": Prosody(7.0, 1.4, 8.0, 0.0, 4.0, 2.0, -1.0, 0.05, 0.0, 0.0, 0.02, -9.0, 0.0),
}
# Takes of one speaker and emotion differ by this much (standard deviation), in the units of Prosody ...
_TAKE = Prosody(0.8, 0.15, 0.8, 0.04, 1.2, 0.8, 1.2, 0.012, 0.06, 0.003, 0.01, 1.0, 0.006)
# ... and speakers among themselves, whatever the emotion.
_HABIT = Prosody(0.5, 0.15, 0.7, 0.03, 1.2, 0.8, 0.9, 0.01, 0.05, 0.002, 0.0, 0.8, 0.004)


@dataclass(frozen=True)
class Phone:
    """One stretch of articulation; amplitudes are linear, 1 is a full vowel."""

    seconds: float
    formants_hz: tuple[float, float, float]
    voicing: float = 0.0
    aspiration: float = 0.0
    noise: float = 0.0
    noise_hz: float = 0.0
    rounding: float = 0.0
    opening: float = 0.3
    stress: float = 0.0


def _stop(
    locus: tuple[float, float, float], voiced: bool, burst_hz: float, burst: float, release: float
) -> list[Phone]:
    """Closure, burst and (for voiceless stops) aspirated release."""
    bar = 0.16 if voiced else 0.0
    lips = 0.0 if burst_hz < 1000.0 else 0.15
    phones = [Phone(0.048, locus, voicing=bar, opening=lips)]
    phones.append(Phone(0.010, locus, voicing=bar, noise=burst, noise_hz=burst_hz, opening=0.25))
    if release:
        phones.append(Phone(release, locus, aspiration=0.30, noise=burst * 0.12, noise_hz=burst_hz))
    return phones


PHONES: dict[str, list[Phone]] = {
    "AA": [Phone(0.085, (730, 1090, 2440), 1.0, opening=1.0)],
    "AO": [Phone(0.135, (590, 880, 2480), 1.0, rounding=0.8, opening=0.8)],
    "IH": [Phone(0.090, (400, 1990, 2550), 0.85, rounding=-0.3, opening=0.5)],
    "AX": [Phone(0.055, (500, 1450, 2450), 0.75, opening=0.5)],
    "AY": [
        Phone(0.085, (700, 1180, 2500), 1.0, opening=1.0),
        Phone(0.070, (420, 1950, 2550), 0.8, rounding=-0.3, opening=0.5),
    ],
    "R": [Phone(0.070, (470, 1270, 1640), 0.75, rounding=0.4, opening=0.4)],
    "NG": [Phone(0.080, (270, 2050, 2750), 0.36, opening=0.25)],
    "DH": [Phone(0.042, (270, 1290, 2540), 0.38, noise=0.035, noise_hz=5200, opening=0.2)],
    "S": [Phone(0.105, (320, 1500, 2530), 0.0, noise=0.26, noise_hz=6600, opening=0.2)],
    "Z": [Phone(0.070, (260, 1450, 2530), 0.26, noise=0.14, noise_hz=6200, opening=0.2)],
    "B": _stop((220, 900, 2150), True, 750, 0.35, 0.0),
    "D": _stop((220, 1700, 2600), True, 3900, 0.40, 0.0),
    "G": _stop((220, 1650, 2250), True, 1800, 0.45, 0.0),
    "T": _stop((320, 1750, 2650), False, 4600, 0.60, 0.042),
    "K": _stop((320, 1950, 2700), False, 2100, 0.60, 0.040),
}
_SENTENCES = {
    STATEMENTS[0]: "K IH1 D Z | AA0 R | T AO1 K IH0 NG | B AY0 | DH AX0 | D AO2 R",
    STATEMENTS[1]: "D AO1 G Z | AA0 R | S IH1 T IH0 NG | B AY0 | DH AX0 | D AO2 R",
}
_STRESS = {"0": 0.0, "1": 1.0, "2": 0.85}
_LENGTH = {"0": 0.78, "1": 1.1, "2": 1.45}


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence.

    Attributes:
        samples_T: mono float32 at 48 kHz within [-1, 1].
        opening_C, rounding_C: the mouth, 400 values per second; opening in [0, 1], rounding in [-1, 1].
        pitch_hz_C: fundamental frequency, 400 values per second, unvoiced sounds and silence included.
    """

    samples_T: npt.NDArray[np.float32]
    opening_C: Array
    rounding_C: Array
    pitch_hz_C: Array


def draw_voice(sex: str, rng: np.random.Generator) -> Voice:
    """A speaker: "male" or "female" pitch and vocal tract, and habits of expression."""
    female = sex == "female"
    return Voice(
        pitch_hz=(198.0 if female else 112.0) * 2 ** rng.uniform(-0.16, 0.16),
        tract=(1.15 if female else 1.0) * rng.uniform(0.96, 1.04),
        tempo=rng.uniform(0.94, 1.06),
        breath=rng.uniform(0.015, 0.04) + 0.015 * female,
        tilt_db=rng.uniform(6.5, 9.5),
        expression=rng.uniform(0.75, 1.2),
        habit=_scatter(_HABIT, rng),
    )


def speak(statement: str, label: str, voice: Voice, rng: np.random.Generator) -> Utterance:
    """Say one of `STATEMENTS` with the emotion `label` in the given voice.

    Every random choice is drawn from `rng`: the same generator state gives the same samples.
    """
    strength = voice.expression * rng.uniform(0.75, 1.2)
    prosody = _add(_scale(PROSODY[label], strength), _add(voice.habit, _scatter(_TAKE, rng)))
    phones = _arrange(statement, voice.tempo * max(1.0 + prosody.tempo, 0.6), prosody.pause, rng)
    counts = np.array([max(1, round(phone.seconds * CONTROL_HZ)) for phone in phones])
    stress_C = _smooth(_track([phone.stress for phone in phones], counts), 0.12)
    tremble_C = _tremble(len(stress_C), prosody.tremor, rng)
    drift_C = 1.5 * _smooth(rng.standard_normal(len(stress_C)), 0.25)
    pitch_hz_C = _pitch(stress_C, tremble_C, counts, prosody, voice, drift_C)
    gain_C = 10 ** (_loudness_db(stress_C, tremble_C, prosody, rng) / 20)
    source_T = _sources(phones, counts, pitch_hz_C, gain_C, prosody, voice, rng)
    voiced_T = _vocal_tract(source_T, phones, counts, voice.tract * (1 + prosody.formants))
    speech_T = voiced_T / _active_level(voiced_T) + _frication(phones, counts, gain_C, prosody, rng)
    samples_T = _master(speech_T, -28.0 + prosody.level, rng)
    return Utterance(samples_T, *_mouth(phones, counts, gain_C), pitch_hz_C)


def _scatter(spread: Prosody, rng: np.random.Generator) -> Prosody:
    return Prosody(**{name: getattr(spread, name) * float(rng.standard_normal()) for name in _FIELDS})


def _scale(prosody: Prosody, factor: float) -> Prosody:
    return Prosody(**{name: getattr(prosody, name) * factor for name in _FIELDS})


def _add(one: Prosody, two: Prosody) -> Prosody:
    return Prosody(**{name: getattr(one, name) + getattr(two, name) for name in _FIELDS})


def _arrange(statement: str, tempo: float, pause: float, rng: np.random.Generator) -> list[Phone]:
    """Phones with their durations in seconds, between two silences."""
    rest = Phone(0.0, (450, 1450, 2450), opening=0.0)
    phones = [replace(rest, seconds=rng.uniform(0.23, 0.31))]
    for symbol in _SENTENCES[statement].split():
        if symbol == "|":
            if pause > 0.005:
                phones.append(Phone(pause, phones[-1].formants_hz, opening=0.15))
            continue
        mark = symbol[-1] if symbol[-1].isdigit() else ""
        for phone in PHONES[symbol.rstrip("012")]:
            length = _LENGTH.get(mark, 1.0) * rng.uniform(0.9, 1.1) / tempo
            # A burst is as short in slow speech as in fast speech.
            seconds = phone.seconds if phone.seconds <= 0.010 else phone.seconds * length
            phones.append(replace(phone, seconds=seconds, stress=_STRESS.get(mark, 0.0)))
    phones[-1] = replace(phones[-1], seconds=phones[-1].seconds * 1.5)
    return [*phones, replace(rest, seconds=rng.uniform(0.27, 0.35))]


def _track(values: list[float], counts: npt.NDArray[np.int_]) -> Array:
    return np.repeat(np.asarray(values, dtype=np.float64), counts)


def _smooth(track_C: Array, seconds: float) -> Array:
    """Moving weighted mean (Hann) that holds the ends."""
    half = max(1, round(seconds * CONTROL_HZ / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(track_C, half, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _pitch(
    stress_C: Array, tremble_C: Array, counts: npt.NDArray[np.int_], prosody: Prosody, voice: Voice, drift_C: Array
) -> Array:
    """Pitch in Hz: declination, accents, ending, tremor and a slow drift, in semitones about the mean."""
    place_C = _place(counts)
    accents_C = 4.5 * max(1 + prosody.span, 0.15) * (stress_C - stress_C.mean())
    line_C = -2.5 * (place_C - 0.5) + prosody.ending * np.clip((place_C - 0.72) / 0.28, 0, 1) ** 1.5
    semitones_C = prosody.pitch + accents_C + line_C + tremble_C + drift_C
    return np.clip(voice.pitch_hz * 2 ** (_smooth(semitones_C, 0.05) / 12), 60.0, 620.0)


def _tremble(count: int, depth: float, rng: np.random.Generator) -> Array:
    """A tremor of 5 to 7 Hz."""
    seconds_C = np.arange(count) / CONTROL_HZ
    wave_C = np.sin(2 * np.pi * (rng.uniform(5.0, 6.8) * seconds_C + rng.uniform()))
    return np.asarray(max(depth, 0.0) * wave_C)


def _place(counts: npt.NDArray[np.int_]) -> Array:
    """Place in the sentence: 0 at its first sound, 1 at its last, silences apart."""
    index = np.arange(counts.sum())
    return np.asarray(np.clip((index - counts[0]) / max(counts[1:-1].sum() - 1, 1), 0.0, 1.0))


def _loudness_db(stress_C: Array, tremble_C: Array, prosody: Prosody, rng: np.random.Generator) -> Array:
    """Stressed syllables stand out, the sentence fades, a trembling voice trembles in loudness too."""
    place_C = np.linspace(0, 1, len(stress_C))
    wobble_C = _smooth(rng.standard_normal(len(stress_C)), 0.12) * 2.4
    swing_C = (3.5 + prosody.stress) * (stress_C - 0.5) - (2.0 + prosody.decay) * place_C
    return np.asarray(swing_C + 3.0 * tremble_C + wobble_C)


def _sources(
    phones: list[Phone],
    counts: npt.NDArray[np.int_],
    pitch_hz_C: Array,
    gain_C: Array,
    prosody: Prosody,
    voice: Voice,
    rng: np.random.Generator,
) -> Array:
    """Glottal pulses and aspiration noise, before the vocal tract."""
    tilt_db = float(np.clip(voice.tilt_db + prosody.tilt, 0.0, 24.0))
    quotient = float(np.clip(0.42 + 0.018 * tilt_db, 0.4, 0.8))
    voicing_T = _stretch(_smooth(_track([p.voicing for p in phones], counts), 0.024) * gain_C)
    hiss_T = _stretch(_smooth(_track([p.aspiration for p in phones], counts), 0.016) * gain_C)
    pulses_T, open_T = _pulses(pitch_hz_C, quotient, max(prosody.jitter, 0.0) + 0.005, rng)
    breath = max(voice.breath + prosody.breath, 0.008)
    noise_T = rng.standard_normal(len(pulses_T))
    voiced_T = voicing_T * (_tilted(pulses_T, tilt_db) + 0.15 * breath * noise_T * (0.35 + 0.65 * open_T))
    return np.asarray(voiced_T + 0.2 * hiss_T * noise_T, dtype=np.float64)


def _stretch(track_C: Array) -> Array:
    """Control points to samples."""
    points = np.arange(len(track_C)) * _STEP
    return np.interp(np.arange(len(track_C) * _STEP), points, track_C)


def _pulses(pitch_hz_C: Array, quotient: float, jitter: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Derivative of the glottal flow (KLGLOTT88: Klatt & Klatt, JASA 87(2), 1990) and the open glottis.

    Periods are jittered, their strengths shimmer. Both results have one value per sample.
    """
    rate_hz = _RATE_HZ * _OVERSAMPLING
    seconds = len(pitch_hz_C) / CONTROL_HZ
    starts = [0.0]
    while starts[-1] < seconds:
        pitch_hz = pitch_hz_C[min(int(starts[-1] * CONTROL_HZ), len(pitch_hz_C) - 1)]
        starts.append(starts[-1] + (1 + jitter * float(np.clip(rng.standard_normal(), -3, 3))) / pitch_hz)
    starts_P = np.array(starts)
    strength_P = 1 + (0.04 + 3 * jitter) * np.clip(rng.standard_normal(len(starts)), -2, 2)
    time_T = np.arange(round(seconds * rate_hz)) / rate_hz
    period_T = np.searchsorted(starts_P, time_T, side="right") - 1
    phase_T = (time_T - starts_P[period_T]) / np.diff(starts_P, append=starts_P[-1] + 0.01)[period_T] / quotient
    flow_T = np.where(phase_T < 1, 2 * phase_T - 3 * phase_T**2, 0.0) * strength_P[period_T]
    fine_T = np.asarray(resample_poly(flow_T, 1, _OVERSAMPLING))
    return fine_T, (phase_T[::_OVERSAMPLING] < 1).astype(np.float64)


def _tilted(pulses_T: Array, tilt_db: float) -> Array:
    """One-pole low pass that takes `tilt_db` off at 3 kHz (Klatt's TL) and keeps the power."""
    gain = 10 ** (-tilt_db / 20)
    cosine = np.cos(2 * np.pi * 3000 / _RATE_HZ)
    # |H|^2 = (1-a)^2 / (1 - 2 a cos + a^2) = gain^2, solved for the pole a.
    middle = (1 - gain**2 * cosine) / (1 - gain**2) if tilt_db > 0.1 else 1e6
    pole = middle - np.sqrt(middle**2 - 1)
    shaped_T = np.asarray(lfilter([1 - pole], [1, -pole], pulses_T))
    return shaped_T * float(np.std(pulses_T) / np.std(shaped_T))


def _resonators(centre_hz: Array, width_hz: Array) -> Array:
    """Second-order sections (..., 6) with unit gain at 0 Hz (Klatt 1980, equation 2)."""
    c = -np.exp(-2 * np.pi * width_hz / _RATE_HZ)
    b = 2 * np.exp(-np.pi * width_hz / _RATE_HZ) * np.cos(2 * np.pi * centre_hz / _RATE_HZ)
    c, b = np.broadcast_arrays(c, b)
    zero, one = np.zeros_like(b), np.ones_like(b)
    return np.stack([1 - b - c, zero, zero, one, -b, -c], axis=-1)


def _vocal_tract(source_T: Array, phones: list[Phone], counts: npt.NDArray[np.int_], tract: float) -> Array:
    """The cascade of resonators: F1 to F3 move with the phones, the upper ones stand."""
    upper_hz = tract * np.array(_UPPER_FORMANTS_HZ)
    upper_hz = upper_hz[upper_hz < 11_500]
    speech_T = sosfilt(_resonators(upper_hz, 200 + 0.05 * upper_hz), source_T)
    tracks = [_smooth(_track([p.formants_hz[k] for p in phones], counts), 0.055) * tract for k in range(3)]
    sections_C36 = _resonators(np.stack(tracks, axis=-1), tract * np.array(_BANDWIDTHS_HZ))
    state = np.zeros((3, 2))
    # A new filter every 5 ms is smooth enough to the ear.
    for block, sections in enumerate(sections_C36[::2]):
        part = slice(2 * block * _STEP, 2 * (block + 1) * _STEP)
        speech_T[part], state = sosfilt(sections, speech_T[part], zi=state)
    return np.asarray(speech_T, dtype=np.float64)


def _frication(
    phones: list[Phone],
    counts: npt.NDArray[np.int_],
    gain_C: Array,
    prosody: Prosody,
    rng: np.random.Generator,
) -> Array:
    """Noise of fricatives and bursts, each in its own band; a soft voice has soft consonants."""
    effort = 10 ** (-0.35 * prosody.tilt / 20)
    total_T = np.zeros(len(gain_C) * _STEP)
    for centre_hz in sorted({phone.noise_hz for phone in phones if phone.noise}):
        values = [phone.noise * (phone.noise_hz == centre_hz) for phone in phones]
        amplitude_T = _stretch(_smooth(_track(values, counts), 0.008) * gain_C) * effort
        band = butter(1, (0.72 * centre_hz, 1.32 * centre_hz), "bandpass", fs=_RATE_HZ, output="sos")
        total_T += sosfilt(band, amplitude_T * rng.standard_normal(len(total_T)))
    return total_T * 1.8


def _master(speech_T: Array, level_db: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Room, level (dB re full scale, of active speech), noise floor, 48 kHz."""
    tail = rng.standard_normal(_RATE_HZ // 8) * np.exp(-np.arange(_RATE_HZ // 8) / (0.022 * _RATE_HZ)) * 0.012
    tail[0] = 1.0
    room_T = fftconvolve(speech_T, tail)[: len(speech_T)]
    scaled_T = room_T * 10 ** (level_db / 20) / _active_level(room_T) + 2e-4 * rng.standard_normal(len(room_T))
    fine_T = np.asarray(resample_poly(scaled_T, SAMPLE_RATE_HZ // _RATE_HZ, 1))
    return (fine_T * min(1.0, 0.95 / float(np.abs(fine_T).max()))).astype(np.float32)


def _active_level(speech_T: Array) -> float:
    """Root mean square of what lies within 30 dB of the loudest 20 ms."""
    power_T = np.convolve(speech_T**2, np.ones(480) / 480, mode="same")
    return float(np.sqrt(power_T[power_T > power_T.max() * 1e-3].mean()))


def _mouth(phones: list[Phone], counts: npt.NDArray[np.int_], gain_C: Array) -> tuple[Array, Array]:
    """Opening from the phone and the voice's envelope; rounding from the phone."""
    envelope_C = np.clip(gain_C / np.quantile(gain_C, 0.95), 0.0, 1.0)
    opening_C = _smooth(_track([p.opening for p in phones], counts), 0.09) * (0.35 + 0.65 * envelope_C)
    return np.clip(opening_C, 0.0, 1.0), _smooth(_track([p.rounding for p in phones], counts), 0.12)
