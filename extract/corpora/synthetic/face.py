"""Synthetic faces for the demo corpus: drawn with Pillow at twice the size and averaged down.

An expression is a set of action units of the Facial Action Coding System (Ekman & Friesen, Facial Action
Coding System, Consulting Psychologists Press, 1978), combined per emotion as in Ekman's EMFACS tables. It
rises from neutral to an apex and falls back a little. The skin changes its tint with the emotion:
Benitez-Quiroz, Srinivasan & Martinez, "Facial color is an efficient mechanism to visually transmit
emotion", PNAS 115(14), 2018. Jaw and lips follow the voice.

The face's own coordinates: the middle between eyes and nose is (0, 0), x to the right, y down, half the
width of the head is 1. Shape suffixes: F frames, H height, W width, N points of an outline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

Array = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

WIDTH, HEIGHT, FRAMES_PER_SECOND = 352, 264, 25
_FINE = 2  # drawn this many times larger
_UNIT = 64.0 * _FINE  # pixels to one unit of the face's coordinates

_SKINS: tuple[Colour, ...] = (
    (236, 193, 166), (198, 149, 116), (224, 177, 143), (160, 112, 82),
    (230, 184, 158), (214, 166, 130), (138, 94, 68), (240, 203, 180),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (58, 40, 30), (34, 28, 28), (124, 82, 46), (26, 22, 24), (164, 120, 66), (82, 56, 40), (30, 24, 24), (138, 70, 40),
)  # fmt: skip
_IRISES: tuple[Colour, ...] = ((86, 60, 40), (64, 42, 30), (74, 104, 128), (92, 104, 70))
# As in RAVDESS, everybody wears something dark before the same wall.
_CLOTHES: tuple[Colour, ...] = (
    (44, 50, 62), (66, 44, 50), (42, 58, 54), (54, 52, 62), (66, 56, 46), (38, 54, 68), (50, 48, 46), (60, 48, 62),
)  # fmt: skip
_WALL: Colour = (214, 216, 218)


# The hair about the forehead, three styles for men (False) and three for women (True).
_FRINGES: dict[bool, tuple[list[tuple[float, float]], ...]] = {
    False: (
        [
            (0.0, -1.42), (0.64, -1.26), (0.99, -0.74), (1.02, -0.06), (0.93, -0.12), (0.86, -0.52), (0.54, -0.84),
            (0.1, -0.82), (-0.45, -0.90), (-0.86, -0.50), (-0.93, -0.12), (-1.02, -0.06), (-0.99, -0.74),
            (-0.60, -1.28),
        ],
        [
            (0.1, -1.36), (0.66, -1.20), (0.98, -0.70), (1.00, -0.10), (0.93, -0.16), (0.86, -0.60), (0.62, -0.94),
            (0.2, -1.02), (-0.2, -1.02), (-0.62, -0.94), (-0.86, -0.60), (-0.93, -0.16), (-1.00, -0.10),
            (-0.98, -0.70), (-0.6, -1.22),
        ],
        [
            (0.2, -1.50), (0.74, -1.30), (1.02, -0.74), (1.03, -0.04), (0.93, -0.12), (0.84, -0.56), (0.66, -0.70),
            (0.3, -0.74), (0.0, -0.88), (-0.4, -0.98), (-0.84, -0.58), (-0.93, -0.12), (-1.03, -0.04),
            (-1.01, -0.74), (-0.62, -1.34),
        ],
    ),
    True: (
        [
            (0.1, -1.48), (0.75, -1.26), (1.10, -0.62), (1.09, 0.12), (0.93, -0.10), (0.80, -0.56), (0.42, -0.90),
            (0.12, -1.02), (-0.4, -0.74), (-0.84, -0.46), (-0.94, -0.02), (-1.09, 0.12), (-1.10, -0.62),
            (-0.72, -1.28),
        ],
        [
            (0.0, -1.36), (0.62, -1.22), (0.98, -0.72), (1.02, -0.10), (0.92, -0.34), (0.70, -0.76), (0.3, -0.96),
            (0.0, -1.0), (-0.3, -0.96), (-0.70, -0.76), (-0.92, -0.34), (-1.02, -0.10), (-0.98, -0.72),
            (-0.62, -1.22),
        ],
        [
            (0.0, -1.48), (0.70, -1.30), (1.10, -0.66), (1.13, 0.3), (0.97, 0.2), (0.88, -0.42), (0.60, -0.72),
            (0.2, -0.69), (-0.2, -0.70), (-0.60, -0.71), (-0.88, -0.42), (-0.97, 0.2), (-1.13, 0.3), (-1.10, -0.66),
            (-0.70, -1.30),
        ],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """A speaker's appearance and habits of expression.

    `gains` scale the action units one by one: some people frown with everything they have.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    female: bool
    hairstyle: int
    beard: bool
    glasses: bool
    jaw: float
    length: float
    eye_distance: float
    eye_size: float
    nose_width: float
    lip_fullness: float
    brow_weight: float
    gains: tuple[float, ...]


@dataclass(frozen=True)
class Expression:
    """Action units in [0, 1], the pose (units of the face) and the skin's tint (red, green, blue)."""

    units: dict[int, float]
    shoulders: float = 0.0
    lean: float = 0.0
    nod: float = 0.0
    tilt: float = 0.0
    turn: float = 0.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    onset_seconds: float = 0.30


ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26, 43)
EXPRESSIONS = {
    "neutral": Expression({}),
    "calm": Expression(
        {12: 0.17, 43: 0.28},
        shoulders=-0.05, lean=-0.02, nod=0.02, tilt=0.03, tint=(0.01, 0.01, 0.0), onset_seconds=0.5,
    ),
    "happy": Expression(
        {6: 0.8, 12: 1.0, 25: 0.6},
        shoulders=0.07, lean=0.05, nod=-0.06, tilt=0.05, tint=(0.07, 0.03, -0.02), onset_seconds=0.25,
    ),
    "sad": Expression(
        {1: 0.9, 4: 0.5, 15: 1.0, 17: 0.6, 43: 0.32},
        shoulders=-0.17, lean=-0.03, nod=0.24, tilt=-0.06, turn=0.06, tint=(-0.06, -0.03, 0.02), onset_seconds=0.6,
    ),
    "angry": Expression(
        {4: 1.0, 5: 0.5, 7: 0.7, 10: 0.3, 23: 0.9, 25: 0.25},
        shoulders=0.10, lean=0.12, nod=0.10, tint=(0.09, -0.05, -0.06), onset_seconds=0.2,
    ),
    "fearful": Expression(
        {1: 1.0, 2: 0.6, 4: 0.6, 5: 1.0, 20: 0.9, 25: 0.5, 26: 0.2},
        shoulders=0.17, lean=-0.12, nod=-0.05, tilt=0.02, turn=-0.10, tint=(-0.04, 0.01, 0.05), onset_seconds=0.18,
    ),
    "disgust": Expression(
        {4: 0.5, 7: 0.5, 9: 1.0, 10: 0.9, 15: 0.4, 16: 0.4, 17: 0.5},
        shoulders=-0.06, lean=-0.10, nod=0.02, tilt=0.10, turn=0.20, tint=(-0.05, 0.01, -0.06), onset_seconds=0.35,
    ),
    "surprised": Expression(
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.4, 26: 0.75},
        shoulders=0.05, lean=-0.03, nod=-0.20, tint=(0.06, 0.06, 0.04), onset_seconds=0.15,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Everything that one frame shows."""

    units: dict[int, float]
    opening: float
    rounding: float
    x: float
    y: float
    scale: float
    tilt: float
    turn: float
    nod: float
    gaze: tuple[float, float]
    shoulders: float


def draw_look(sex: str, number: int, rng: np.random.Generator) -> Look:
    """The face of speaker `number`; palettes are dealt by number, so that neighbours differ."""
    female = sex == "female"
    return Look(
        skin=_SKINS[number * 3 % 8],
        hair=_HAIRS[number * 5 % 8],
        iris=_IRISES[number * 3 % 4],
        clothes=_CLOTHES[number * 7 % 8],
        female=female,
        hairstyle=number // 2 % 3,
        beard=not female and number // 2 % 4 == 1,
        glasses=number % 5 == 0,
        jaw=rng.uniform(0.52, 0.60) if female else rng.uniform(0.62, 0.74),
        length=rng.uniform(1.27, 1.36),
        eye_distance=rng.uniform(0.40, 0.44),
        eye_size=rng.uniform(0.19, 0.215) + 0.012 * female,
        nose_width=rng.uniform(0.14, 0.18),
        lip_fullness=rng.uniform(0.9, 1.1) + 0.2 * female,
        brow_weight=rng.uniform(0.8, 1.0) if female else rng.uniform(1.05, 1.35),
        gains=tuple(float(g) for g in rng.uniform(0.65, 1.15, len(ACTION_UNITS))),
    )


def perform(
    look: Look, label: str, opening_F: Array, rounding_F: Array, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draw the frames of one clip.

    Args:
        look: the speaker.
        label: the emotion.
        opening_F, rounding_F: the mouth, one value per frame, as `Utterance` describes them.
        rng: every random choice; the same state gives the same pixels.

    Returns:
        (F, 264, 352, 3) uint8 RGB.
    """
    expression = EXPRESSIONS[label]
    strength = rng.uniform(0.6, 1.15)
    tint = tuple(strength * t + 0.012 * float(rng.standard_normal()) for t in expression.tint)
    skin = _tinted(look.skin, tint)
    stage = _stage()
    light = _light(rng)
    poses = _poses(look, expression, strength, opening_F, rounding_F, rng)
    return np.stack([_frame(look, skin, pose, stage, light) for pose in poses])


def _poses(
    look: Look,
    expression: Expression,
    strength: float,
    opening_F: Array,
    rounding_F: Array,
    rng: np.random.Generator,
) -> list[Pose]:
    count = len(opening_F)
    seconds_F = np.arange(count) / FRAMES_PER_SECOND
    rise_F = _dynamics(seconds_F, expression.onset_seconds, rng)
    blink_F = _blinks(seconds_F, rng)
    sway_FK = np.stack([_drift(seconds_F, rng) for _ in range(7)], axis=-1)
    still = rng.standard_normal(5) * (0.02, 0.015, 0.03, 0.05, 0.015)
    target = {
        unit: max(0.0, expression.units.get(unit, 0.0) * gain * strength + abs(rng.normal(0, 0.05)))
        for unit, gain in zip(ACTION_UNITS, look.gains, strict=True)
    }
    poses = []
    for f in range(count):
        units = {unit: min(value * rise_F[f], 1.2) for unit, value in target.items()}
        units[43] = max(units[43], float(blink_F[f]))
        move = strength * rise_F[f]
        sway = sway_FK[f]
        poses.append(
            Pose(
                units,
                float(opening_F[f]),
                float(rounding_F[f]),
                x=0.025 * sway[0] + still[0],
                y=0.6 * expression.nod * move + 0.02 * sway[1] + 0.02 * float(opening_F[f]),
                scale=1 + expression.lean * move + still[1] + 0.006 * sway[2],
                tilt=expression.tilt * move + 0.02 * sway[3] + still[2],
                turn=expression.turn * move + 0.06 * sway[4] + still[3],
                nod=expression.nod * move + 0.03 * sway[1],
                gaze=(0.09 * sway[5], 0.06 * sway[6]),
                shoulders=expression.shoulders * move + 0.01 * sway[1] + still[4],
            )
        )
    return poses


def _dynamics(seconds_F: Array, onset_seconds: float, rng: np.random.Generator) -> Array:
    """Onset, apex and a partial offset; an actor starts with a trace of the emotion already there."""
    start = 0.1 + rng.uniform(0, 0.25)
    onset_F = 1 / (1 + np.exp(-(seconds_F - start - onset_seconds / 2) * 7 / onset_seconds))
    end = seconds_F[-1] - rng.uniform(0.15, 0.4)
    offset_F = 1 / (1 + np.exp((seconds_F - end) * 12))
    return np.asarray((0.25 + 0.75 * onset_F) * (0.55 + 0.45 * offset_F))


def _blinks(seconds_F: Array, rng: np.random.Generator) -> Array:
    """One or two blinks of about 200 ms."""
    closed_F = np.zeros(len(seconds_F))
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(0.15, float(seconds_F[-1]))
        closed_F = np.maximum(closed_F, np.clip(1.35 - np.abs(seconds_F - centre) / 0.09, 0, 1))
    return closed_F


def _drift(seconds_F: Array, rng: np.random.Generator) -> Array:
    """A slow movement of about unit size: three sines of random phase."""
    rates_hz = rng.uniform(0.25, 1.4, 3)
    waves = np.sin(2 * np.pi * (rates_hz * seconds_F[:, None] + rng.uniform(size=3))) / (0.6 + rates_hz)
    return np.asarray(waves.sum(axis=1) * 0.8)


class Pencil:
    """Fills and strokes outlines given in the face's coordinates onto a canvas in pixels."""

    def __init__(self, canvas: Image.Image, pose: Pose) -> None:
        """The head turns about its neck: the origin of tilt and scale lies below the chin."""
        self._opaque, self._glaze = ImageDraw.Draw(canvas), ImageDraw.Draw(canvas, "RGBA")
        cosine, sine = np.cos(pose.tilt) * pose.scale, np.sin(pose.tilt) * pose.scale
        self._matrix = np.array([[cosine, -sine], [sine, cosine]]) * _UNIT
        pivot = np.array([WIDTH / 2, HEIGHT * 0.795]) * _FINE + np.array([pose.x, pose.y * 0.5]) * _UNIT
        self._origin = pivot - self._matrix @ (0.0, 1.42)

    def fill(self, outline_N2: Array, colour: Colour, alpha: int = 255) -> None:
        """Fill a closed outline."""
        if alpha == 255:  # blending costs several times as much as overwriting
            self._opaque.polygon(self._placed(outline_N2), fill=colour)
        elif alpha > 0:
            self._glaze.polygon(self._placed(outline_N2), fill=(*colour, alpha))

    def stroke(self, line_N2: Array, colour: Colour, width: float, alpha: int = 255) -> None:
        """Draw an open line; `width` in units of the face. It tapers towards both ends."""
        along = np.empty_like(line_N2)
        along[1:-1] = line_N2[2:] - line_N2[:-2]
        along[0], along[-1] = line_N2[1] - line_N2[0], line_N2[-1] - line_N2[-2]
        normal = along[:, ::-1] * (1, -1) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
        normal *= width / 2 * _taper(len(line_N2))
        self.fill(np.concatenate([line_N2 + normal, (line_N2 - normal)[::-1]]), colour, alpha)

    def _placed(self, outline_N2: Array) -> list[float]:
        placed_N2 = outline_N2 @ self._matrix.T + self._origin
        flat: list[float] = placed_N2.ravel().tolist()
        return flat


@cache
def _taper(count: int) -> Array:
    return np.asarray(np.sin(np.linspace(0.12, np.pi - 0.12, count))[:, None] ** 0.6)


def _frame(look: Look, skin: Colour, pose: Pose, stage: Image.Image, light: Image.Image) -> npt.NDArray[np.uint8]:
    canvas = stage.copy()
    pencil = Pencil(canvas, pose)
    dx, dy = 0.16 * pose.turn, 0.22 * pose.nod
    shift = np.array([dx, dy])
    if look.female and look.hairstyle == 2:  # long hair falls behind the shoulders
        _draw_back_hair(pencil, look)
    _draw_body(canvas, look, skin, pose)
    if not (look.female and look.hairstyle == 2):
        _draw_back_hair(pencil, look)
    _draw_neck_and_ears(pencil, look, skin)
    outline = _head_outline(look, pose)
    _draw_head(pencil, look, skin, outline, shift)
    _draw_beard(pencil, look, pose, outline, shift)
    for side in (-1, 1):
        _draw_eye(pencil, look, skin, pose, side, shift)
        _draw_brow(pencil, look, pose, side, shift)
    _draw_nose(pencil, look, skin, pose, shift * 1.6)
    _draw_mouth(pencil, look, skin, pose, shift * 1.2)
    _draw_lines(pencil, skin, pose, shift)
    _draw_front_hair(pencil, look, shift)
    if look.glasses:
        _draw_glasses(pencil, look, shift)
    small = ImageChops.multiply(canvas.reduce(_FINE), light)
    return np.asarray(small, dtype=np.uint8)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(max(int(channel * factor), 0), 255) for channel in colour)
    return red, green, blue


def _tinted(colour: Colour, tint: tuple[float, ...]) -> Colour:
    red, green, blue = (min(max(int(c * (1 + t)), 0), 255) for c, t in zip(colour, tint, strict=True))
    return red, green, blue


def _mix(one: Colour, two: Colour, part: float) -> Colour:
    red, green, blue = (int(a + (b - a) * part) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _smooth(points: list[tuple[float, float]], closed: bool = True) -> Array:
    """A Catmull-Rom curve through the points."""
    knots = np.array(points)
    before, after = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    around = np.concatenate([before, knots, after])
    count = len(around) - 3
    curve = (_catmull_rom() @ around[np.arange(count)[:, None] + np.arange(4)]).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, knots[-1:]])


@cache
def _catmull_rom() -> Array:
    """Weights of four neighbouring points at six steps between the middle two."""
    t = np.arange(6)[:, None] / 6
    powers = np.concatenate([t**0, t, t**2, t**3], axis=1)
    return np.asarray(powers @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2)


def _mirror(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A right half, top to bottom, made whole."""
    return points + [(-x, y) for x, y in reversed(points) if x != 0.0]


def _oval(x: float, y: float, width: float, height: float) -> Array:
    return np.asarray(_circle() * (width, height) + (x, y))


@cache
def _circle() -> Array:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@cache
def _stage() -> Image.Image:
    """The wall, lit from the right."""
    y, x = np.mgrid[: HEIGHT * _FINE, : WIDTH * _FINE] / (HEIGHT * _FINE)
    glow = 1.0 - 0.22 * ((x - 0.80) ** 2 + (y - 0.40) ** 2)[..., None]
    return Image.fromarray(np.clip(glow * _WALL, 0, 255).astype(np.uint8))


def _draw_body(canvas: Image.Image, look: Look, skin: Colour, pose: Pose) -> None:
    """Shoulders, clothes and the skin above their collar; they follow the head a little."""
    follows = replace(pose, tilt=0.0, x=0.4 * pose.x, y=-2 * pose.shoulders, scale=1 + 0.5 * (pose.scale - 1))
    pencil = Pencil(canvas, follows)
    wide = 1.62 if look.female else 1.88
    slope = 0.6 * pose.shoulders  # raised shoulders are also square
    body = [(0.30, 1.45), (0.62, 1.66), (wide - 0.4, 1.84 - slope), (wide, 2.3 - slope), (wide + 0.1, 3.0), (0.0, 3.2)]
    pencil.fill(_smooth(_mirror(body)), _shade(look.clothes, 0.84))
    pencil.fill(_smooth(_mirror([(x * 0.975, y + 0.035) for x, y in body])), look.clothes)
    collar = [(0.0, 1.52), (0.44, 1.58), (0.64, 1.70), (0.40, 1.95), (0.0, 2.07)]
    pencil.fill(_smooth(_mirror(collar)), _shade(skin, 0.80))


def _light(rng: np.random.Generator) -> Image.Image:
    """A soft key light from one side, as a picture to multiply with."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    side = rng.uniform(0.5, 0.85)
    fall = 1.0 - rng.uniform(0.18, 0.24) * ((x - side) ** 2 + (y - 0.28) ** 2)
    level = rng.uniform(0.98, 1.0)
    return Image.fromarray(np.clip(255 * level * np.repeat(fall[..., None], 3, axis=2), 0, 255).astype(np.uint8))


def _head_outline(look: Look, pose: Pose) -> Array:
    """Skull, cheeks and a chin that drops with the jaw."""
    drop = 0.10 * pose.opening + 0.16 * pose.units[26]
    chin = look.length + drop
    cheek = 0.96 + 0.02 * pose.units[12]
    right = [
        (0.0, -1.18), (0.52, -1.05), (0.86, -0.66), (0.96, -0.14), (cheek - 0.03, 0.32),
        (look.jaw + 0.16, 0.82 + 0.5 * drop), (look.jaw - 0.16, chin - 0.13), (0.22, chin - 0.01), (0.0, chin),
    ]  # fmt: skip
    return _smooth(_mirror(right))


def _draw_back_hair(pencil: Pencil, look: Look) -> None:
    if not look.female:
        pencil.fill(_oval(0, -0.42, 1.02, 0.92), _shade(look.hair, 0.8))
        return
    ends = (1.42, 0.72, 1.85)[look.hairstyle]
    right = [
        (0.0, -1.46),
        (0.66, -1.28),
        (1.06, -0.72),
        (1.16, 0.0),
        (1.14, 0.55),
        (1.02, ends),
        (0.5, ends + 0.04),
        (0.0, ends),
    ]
    pencil.fill(_smooth(_mirror(right)), _shade(look.hair, 0.78))
    if look.hairstyle == 1:
        pencil.fill(_oval(0, -1.50, 0.34, 0.30), _shade(look.hair, 0.85))


def _draw_neck_and_ears(pencil: Pencil, look: Look, skin: Colour) -> None:
    width = 0.40 if look.female else 0.50
    neck = [(width, 0.70), (width - 0.02, 1.30), (width + 0.05, 1.62), (width * 0.75, 1.82), (0.0, 1.94)]
    pencil.fill(_smooth(_mirror(neck)), _shade(skin, 0.80))
    for depth, alpha in ((0.26, 40), (0.18, 45), (0.10, 50)):
        chin = look.length + depth
        shadow = [(width - 0.03, 0.8), (width - 0.04, chin - 0.12), (0.6 * width, chin), (0.0, chin + 0.05)]
        pencil.fill(np.concatenate([shadow, [(-x, y) for x, y in reversed(shadow)]]), _shade(skin, 0.62), alpha)
    for side in (-1, 1):
        pencil.fill(_oval(side * 0.98, 0.10, 0.13, 0.26), _shade(skin, 0.90))
        pencil.fill(_oval(side * 1.00, 0.11, 0.065, 0.16), _shade(skin, 0.76))


def _draw_head(pencil: Pencil, look: Look, skin: Colour, outline: Array, shift: Array) -> None:
    """The face with shaded sides, warm cheeks and a lit forehead."""
    pencil.fill(outline, _shade(skin, 0.90))
    for inset, shade, alpha in ((0.965, 0.95, 255), (0.92, 0.985, 255), (0.86, 1.0, 255)):
        pencil.fill(outline * (inset, 0.5 + inset / 2) + 0.5 * shift, _shade(skin, shade), alpha)
    warm = _mix(skin, (214, 92, 86), 0.5)
    for side in (-1, 1):
        for size in (1.0, 0.78, 0.55):
            pencil.fill(
                _oval(side * 0.56 + shift[0], 0.46 + shift[1], 0.26 * size, 0.19 * size), warm, 22 + 8 * look.female
            )
    for size in (1.0, 0.7):
        pencil.fill(_oval(shift[0], -0.66 + shift[1], 0.50 * size, 0.24 * size), _shade(skin, 1.10), 46)
        pencil.fill(_oval(shift[0], look.length - 0.20 + shift[1], 0.20 * size, 0.11 * size), _shade(skin, 1.08), 40)


def _draw_beard(pencil: Pencil, look: Look, pose: Pose, outline: Array, shift: Array) -> None:
    """A short beard along the jaw and over the lip."""
    if not look.beard:
        return
    jaw = outline[outline[:, 1] > 0.34] * (0.985, 0.995)
    right_first = jaw[np.argsort(-np.arctan2(jaw[:, 0], jaw[:, 1] - 0.2))]
    inner = _smooth(
        [(-0.78, 0.42), (-0.56, 0.62), (-0.36, 0.52), (0, 0.53), (0.36, 0.52), (0.56, 0.62), (0.78, 0.42)], False
    )
    pencil.fill(np.concatenate([right_first, inner + shift]), look.hair, 150 - int(30 * pose.opening))


def _draw_eye(pencil: Pencil, look: Look, skin: Colour, pose: Pose, side: int, shift: Array) -> None:
    """Eyeball, iris, lids and lashes; the lids cover what the iris has too much."""
    units = pose.units
    half = look.eye_size
    centre = np.array([side * look.eye_distance * (1 - 0.10 * side * pose.turn), -0.02]) + shift
    closed = min(units[43], 1.0)
    upper = half * (0.56 + 0.34 * units[5] - 0.12 * units[7] - 0.10 * units[6]) * (1 - closed) - 0.015 * closed
    lower = half * (0.36 + 0.06 * units[5] - 0.20 * units[7] - 0.24 * units[6] - 0.12 * units[9]) * (1 - 0.6 * closed)
    droop = 0.03 * units[1] * units[15]
    span = np.linspace(-1, 1, 15)
    x = centre[0] + side * half * span  # from the inner to the outer corner
    bow = (1 - span**2) ** 0.75
    top_N2 = np.stack([x, centre[1] - upper * bow + droop * span - 0.012 * span], axis=-1)
    low_N2 = np.stack([x, centre[1] + max(lower, 0.0) * bow + droop * span - 0.012 * span], axis=-1)
    socket = _oval(centre[0], centre[1] - 0.03, half * 1.36, half * 1.12)
    pencil.fill(socket, _shade(skin, 0.80), 70)
    pencil.fill(np.concatenate([top_N2, low_N2[::-1]]), (240, 238, 234))
    _draw_iris(pencil, look, centre + np.array(pose.gaze) * half)
    _draw_lids(pencil, skin, top_N2, low_N2, half)
    pencil.stroke(top_N2, _shade(look.hair, 0.45), 0.045 + 0.012 * look.female)
    pencil.stroke(low_N2[3:], _shade(skin, 0.58), 0.014, 170)


def _draw_iris(pencil: Pencil, look: Look, at: Array) -> None:
    size = 0.098
    pencil.fill(_oval(at[0], at[1] - 0.01, size, size), _shade(look.iris, 0.62))
    pencil.fill(_oval(at[0], at[1] - 0.01, size * 0.82, size * 0.82), look.iris)
    pencil.fill(_oval(at[0], at[1] - 0.01, size * 0.42, size * 0.42), (18, 14, 14))
    pencil.fill(_oval(at[0] + 0.032, at[1] - 0.045, 0.020, 0.020), (250, 250, 250))


def _draw_lids(pencil: Pencil, skin: Colour, top_N2: Array, low_N2: Array, half: float) -> None:
    """Skin above and below the slit, and the crease of the upper lid."""
    arch = np.sqrt(np.clip(1 - np.linspace(-1, 1, len(top_N2)) ** 2, 0, 1))
    middle = (top_N2[:1] + top_N2[-1:]) / 2
    above_N2 = np.stack([top_N2[:, 0], middle[0, 1] - half * 0.98 * arch], axis=-1)
    below_N2 = np.stack([low_N2[:, 0], middle[0, 1] + half * 0.86 * arch], axis=-1)
    above_N2[:, 1] = np.minimum(above_N2[:, 1], top_N2[:, 1])
    below_N2[:, 1] = np.maximum(below_N2[:, 1], low_N2[:, 1])
    pencil.fill(np.concatenate([top_N2, above_N2[::-1]]), _shade(skin, 0.90))
    pencil.fill(np.concatenate([low_N2, below_N2[::-1]]), _shade(skin, 0.95))
    crease_N2 = top_N2 * (1.0, 0.45) + above_N2 * (0.0, 0.55)
    pencil.stroke(crease_N2[1:-1], _shade(skin, 0.62), 0.020, 190)


def _draw_brow(pencil: Pencil, look: Look, pose: Pose, side: int, shift: Array) -> None:
    units = pose.units
    pull = 0.06 * units[4] + 0.02 * units[9]
    down = 0.06 * units[4] + 0.06 * units[9]
    inner = -0.34 - 0.17 * units[1] + 0.09 * units[4] + down
    arch = -0.44 - 0.12 * units[2] - 0.05 * units[1] + down
    outer = -0.33 - 0.15 * units[2] + 0.4 * down + 0.05 * units[1] * (1 - min(units[2], 1.0))
    distance = look.eye_distance
    line = [
        (side * (distance - 0.23 - pull), inner), (side * (distance - 0.06 - pull), (inner + arch) / 2 - 0.035),
        (side * (distance + 0.11), arch), (side * (distance + 0.30), outer),
    ]  # fmt: skip
    curve_N2 = _smooth(line, closed=False) + shift * 1.1
    weight = 0.075 * look.brow_weight
    pencil.stroke(curve_N2, _shade(look.hair, 0.8), weight * 1.25, 90)
    pencil.stroke(curve_N2, _shade(look.hair, 0.72), weight, 235)


def _draw_nose(pencil: Pencil, look: Look, skin: Colour, pose: Pose, shift: Array) -> None:
    wide = look.nose_width + 0.035 * pose.units[9] + 0.015 * pose.units[10] + 0.012 * pose.units[12]
    lift = 0.05 * pose.units[9]
    x, y = shift
    bridge = [(x * 0.4 - 0.075, -0.12 + y * 0.4), (x * 0.8 - 0.085, 0.16 + y), (x - wide * 0.9, 0.38 + y - lift)]
    pencil.stroke(_smooth(bridge, closed=False), _shade(skin, 0.74), 0.045, 110)
    for size, alpha in ((1.0, 60), (0.7, 60)):
        pencil.fill(_oval(x + 0.02, 0.14 + y, 0.05 * size, 0.26 * size), _shade(skin, 1.12), alpha)
    pencil.fill(_oval(x, 0.39 + y - lift, wide * 0.80, 0.105), _shade(skin, 0.93), 150)
    pencil.fill(_oval(x + 0.02, 0.355 + y - lift, wide * 0.42, 0.06), _shade(skin, 1.12), 110)
    for side in (-1, 1):
        wing = [
            (side * wide * 0.72, 0.30),
            (side * wide * 1.12, 0.38),
            (side * wide * 0.98, 0.455),
            (side * wide * 0.55, 0.465),
        ]
        pencil.stroke(_smooth(wing, closed=False) + np.array([x, y - lift]), _shade(skin, 0.66), 0.034, 200)
        pencil.fill(_oval(side * wide * 0.46 + x, 0.462 + y - lift, 0.045, 0.021), _shade(skin, 0.42), 210)


def _lip_curves(look: Look, pose: Pose) -> tuple[Array, Array, Array, Array]:
    """Outer upper, inner upper, inner lower and outer lower contour, left to right, 17 points each."""
    units = pose.units
    jaw = min(0.50 * pose.opening * (1 - 0.35 * units[23]) + 0.85 * units[26], 1.15)
    half = 0.37 + 0.13 * units[12] + 0.10 * units[20] - 0.075 * pose.rounding - 0.05 * units[23] - 0.05 * units[26]
    corner = -0.015 - 0.17 * units[12] + 0.13 * units[15] + 0.03 * units[20] + 0.11 * jaw
    gap = 0.30 * jaw + 0.09 * units[25] + 0.05 * units[10] + 0.02 * pose.opening
    raised = 0.055 * units[10] + 0.05 * units[9] + 0.35 * 0.09 * units[25]
    pressed = 1 - 0.5 * units[23] - 0.22 * units[12] + 0.12 * max(pose.rounding, 0)
    u = np.linspace(-1, 1, 17)
    bow = np.clip(1 - u**2, 0, 1)
    line = corner * np.abs(u) ** 1.7 - 0.045 * units[17] * bow
    inner_top = line - (0.10 * gap + raised) * bow**0.8
    inner_low = line + (0.90 * gap - raised * 0.4) * bow**0.7
    inner_low = np.maximum(inner_low, inner_top)
    cupid = bow**0.6 * (1 - 0.22 * np.exp(-((u / 0.16) ** 2)))
    outer_top = inner_top - 0.085 * look.lip_fullness * pressed * cupid
    outer_low = inner_low + 0.115 * look.lip_fullness * pressed * bow**0.7 + 0.02 * units[16] * bow
    top, inside, under, bottom = (
        np.stack([half * u, y], axis=-1) for y in (outer_top, inner_top, inner_low, outer_low)
    )
    return top, inside, under, bottom


def _draw_mouth(pencil: Pencil, look: Look, skin: Colour, pose: Pose, shift: Array) -> None:
    at = shift + np.array([0.0, 0.76])
    top, inside, under, bottom = (curve + at for curve in _lip_curves(look, pose))
    lips = _mix(skin, (176, 72, 78), 0.55 if look.female else 0.36)
    pencil.fill(bottom * (0.8, 1.0) + (0.2 * at[0], 0.055), _shade(skin, 0.72), 90)
    pencil.fill(np.concatenate([inside, under[::-1]]), (62, 26, 28))
    gap = under[:, 1] - inside[:, 1]
    if gap.max() > 0.03:
        teeth_N2 = inside + np.stack([np.zeros(17), np.minimum(gap * 0.62, 0.085)], axis=-1)
        pencil.fill(np.concatenate([inside[2:-2], teeth_N2[2:-2][::-1]]), (232, 228, 220))
    if gap.max() > 0.14:
        tongue_N2 = under - np.stack([np.zeros(17), np.maximum(gap - 0.13, 0) * 0.6], axis=-1)
        pencil.fill(np.concatenate([tongue_N2[3:-3], under[3:-3][::-1]]), (158, 74, 78))
    pencil.fill(np.concatenate([top, inside[::-1]]), _shade(lips, 0.88))
    pencil.fill(np.concatenate([under, bottom[::-1]]), lips)
    pencil.stroke((under * 0.45 + bottom * 0.55)[4:-4], _shade(lips, 1.22), 0.03, 120)
    pencil.stroke(inside, _shade(lips, 0.48), 0.022, 220)
    for corner in (top[0], top[-1]):
        pencil.fill(_oval(corner[0], corner[1], 0.028, 0.022), _shade(skin, 0.60), 150)


def _draw_lines(pencil: Pencil, skin: Colour, pose: Pose, shift: Array) -> None:
    """Folds that come with strong action units: nose to mouth, forehead, between the brows, chin."""
    units = pose.units
    fold = min(0.75 * units[12] + 0.8 * units[10] + 0.6 * units[9] + 0.35 * units[15], 1.0)
    dark = _shade(skin, 0.64)
    for side in (-1, 1):
        wide = 0.05 * units[12]
        cheek = [(side * 0.24, 0.40), (side * (0.40 + wide), 0.56), (side * (0.50 + wide), 0.74 - 0.05 * units[12])]
        pencil.stroke(_smooth(cheek, closed=False) + shift, dark, 0.032, int(40 + 150 * fold))
        frown = [(side * 0.075, -0.40), (side * 0.06, -0.27), (side * 0.085, -0.17)]
        pencil.stroke(_smooth(frown, closed=False) + shift, dark, 0.026, int(190 * min(units[4], 1.0)))
        pencil.stroke(
            _smooth([(side * 0.11, -0.06), (0, -0.01), (-side * 0.11, -0.06)], False) + shift,
            dark,
            0.022,
            int(130 * min(units[9], 1.0)),
        )
    brow = min(0.6 * units[1] + 0.5 * units[2], 1.0)
    for height in (-0.68, -0.79):
        crease = [(-0.46, height + 0.05), (-0.2, height - 0.01), (0.2, height - 0.01), (0.46, height + 0.05)]
        pencil.stroke(_smooth(crease, closed=False) + shift, dark, 0.024, int(150 * brow))
    pencil.stroke(
        _smooth([(-0.16, 1.06), (0, 1.02), (0.16, 1.06)], False) + shift,
        dark,
        0.03,
        int(50 + 130 * min(units[17], 1.0)),
    )


def _draw_front_hair(pencil: Pencil, look: Look, shift: Array) -> None:
    """The hair over the forehead, with a few strands."""
    place = np.array([0.5 * shift[0], 0.3 * shift[1]])
    pencil.fill(_smooth(_FRINGES[look.female][look.hairstyle]) + place, look.hair)
    for x in (-0.5, -0.1, 0.35):
        strand = [(x - 0.12, -1.22), (x + 0.1, -1.20), (x + 0.34, -1.06)]
        pencil.stroke(_smooth(strand, closed=False) + place * (1, 0), _shade(look.hair, 1.45), 0.07, 70)


def _draw_glasses(pencil: Pencil, look: Look, shift: Array) -> None:
    frame: Colour = (38, 34, 36)
    for side in (-1, 1):
        rim = _oval(side * look.eye_distance + shift[0], 0.02 + shift[1], 0.30, 0.24)
        closed = np.concatenate([rim, rim[:2]])
        for half in (closed[:15], closed[14:], closed[7:22], np.concatenate([rim[21:], rim[:8]])):
            pencil.stroke(half, frame, 0.036)
        pencil.stroke(np.array([(side * 0.70, -0.02), (side * 0.84, -0.02), (side * 0.97, 0.0)]) + shift, frame, 0.034)
    pencil.stroke(_smooth([(-0.13, 0.0), (0.0, -0.035), (0.13, 0.0)], False) + shift, frame, 0.034)
