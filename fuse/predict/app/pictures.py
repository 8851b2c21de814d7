"""What the page shows, as HTML. Pictures and sound stand in it as data: no file is written, nothing is asked for.

Shape letters: T frames or samples, H height, W width, C colour channels.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from cache.media import SAMPLE_RATE_HZ, Media
from fuse.predict.app.trial import Tried
from fuse.predict.windows import Window

FRAMES_SHOWN = 6
FULL_SCALE = 32_767
# For and against, told apart without colour vision as well (ColorBrewer's PuOr).
FOR, AGAINST = "230, 97, 1", "94, 60, 153"


def below_caption(content: str) -> str:
    """What stands in a panel: its caption lies over the panel's first line."""
    return f'<div class="told">{content}</div>'


def problem(words: str) -> str:
    """One line that says why there is no answer."""
    return f'<p class="problem" role="alert"><b>No answer:</b> {escape(words)}</p>'


def answer(tried: Tried) -> str:
    """Labels by probability, and what is doubtful about them."""
    one = tried.prediction
    order = sorted(one.probabilities, key=lambda label: -one.probabilities[label])
    rows = "".join(_bar(label, one.probabilities[label]) for label in order)
    doubts = [f"{name} is missing ({why}); the run's stand-in takes its place" for name, why in one.missing.items()]
    if one.unfamiliar:
        unlike = " and ".join(one.unfamiliar)
        doubts.append(f"{unlike} unlike anything that the run was trained on; do not rely on this answer")
    notes = "".join(f"<p>{escape(doubt)}</p>" for doubt in doubts)
    return f'<h3 class="label">{escape(one.label)}</h3><table class="bars">{rows}</table>{notes}'


def heard(tried: Tried) -> str:
    """What is said in the changed clip, by the recogniser, else by the statement that was given."""
    if tried.prediction.heard is None:
        return "<p>This run listens to no words.</p>"
    words = tried.prediction.heard.transcript
    if not words:
        return "<p>No words.</p>"
    typed = (
        "" if json.loads(tried.prediction.heard.words) else "<p>As typed, or as the table says: nobody listened.</p>"
    )
    return f"<blockquote>{escape(words)}</blockquote>{typed}"


def given(tried: Tried) -> str:
    """The clip as the encoders get it: some frames, and the sound."""
    parts = []
    if tried.changed.frames_THWC is not None:
        parts.append(f'<img alt="frames of the clip" src="{_film_strip(tried.changed)}">')
    if tried.changed.waveform_T is not None:
        parts.append(f'<audio controls src="{_sound(tried.changed)}"></audio>')
    return f"<p>{escape(tried.name)}</p>" + "".join(parts)


def contributions(tried: Tried, parts: Sequence[Window] = ()) -> str:
    """By modality over the whole clip, and by window as soon as that is known."""
    label = escape(tried.prediction.label)
    head = "".join(f"<th>{escape(_span(part, tried.changed))}</th>" for part in parts)
    rows = "".join(_row(name, worth, parts) for name, worth in tried.prediction.contributions.items())
    waiting = "" if parts else "<p>Windows are being computed ...</p>"
    return (
        f"<p>What each modality adds to the probability of <b>{label}</b>, and what is lost without a window:</p>"
        f'<table class="contributions"><tr><th></th><th>whole clip</th>{head}</tr>{rows}</table>{waiting}'
    )


def _bar(label: str, probability: float) -> str:
    width = f"{100 * probability:.1f}"
    return (
        f'<tr><th>{escape(label)}</th><td class="track"><div style="width: {width}%"></div></td>'
        f"<td>{probability:.3f}</td></tr>"
    )


def _row(name: str, worth: float, parts: Sequence[Window]) -> str:
    cells = "".join(_cell(part.contributions.get(name)) for part in parts)
    return f"<tr><th>{escape(name)}</th>{_cell(worth)}{cells}</tr>"


def _cell(worth: float | None) -> str:
    if worth is None:
        return "<td></td>"
    colour = FOR if worth > 0 else AGAINST
    return f'<td style="background: rgba({colour}, {min(1.0, abs(worth)):.2f})">{worth:+.3f}</td>'


def _span(part: Window, media: Media) -> str:
    """In seconds where there is sound to count them by, else in per cent of the clip."""
    if media.waveform_T is None:
        return f"{100 * part.start:.0f} to {100 * part.end:.0f} %"
    seconds = len(media.waveform_T) / SAMPLE_RATE_HZ
    return f"{part.start * seconds:.1f} to {part.end * seconds:.1f} s"


def _film_strip(media: Media) -> str:
    frames_THWC = media.frames_THWC
    assert frames_THWC is not None
    chosen = np.linspace(0, len(frames_THWC) - 1, min(FRAMES_SHOWN, len(frames_THWC))).round().astype(int)
    strip_HWC = np.concatenate(list(frames_THWC[chosen]), axis=1)
    file = io.BytesIO()
    Image.fromarray(strip_HWC).save(file, format="png")
    return _data("image/png", file.getvalue())


def _sound(media: Media) -> str:
    assert media.waveform_T is not None
    samples_T = (np.clip(media.waveform_T, -1, 1) * FULL_SCALE).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, SAMPLE_RATE_HZ, len(samples_T), "NONE", "not compressed"))
        sound.writeframes(samples_T.tobytes())
    return _data("audio/wav", file.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


STYLES: Mapping[str, str] = {
    ".told": "padding-top: 1.6em",
    ".track": "width: 60%; background: rgba(127, 127, 127, 0.15)",
    ".track div": f"height: 1em; background: rgb({FOR})",
    ".bars, .contributions": "width: 100%; border-spacing: 2px",
    ".bars th, .contributions th": "text-align: left; font-weight: normal",
    ".contributions td": "text-align: center",
    ".problem": f"border-left: 4px solid rgb({FOR}); padding-left: 0.5em",
    "img[alt='frames of the clip']": "width: 100%",
}
CSS = "\n".join(f"{selector} {{ {rules} }}" for selector, rules in STYLES.items())
