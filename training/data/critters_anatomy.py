"""Anatomy of a critter: rolls proportions, colours and markings, and lists the ellipsoids.

Written in numpy; critters_shape.py turns the lists into tensors. Scene units before the head is fitted into its ball.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

HEAD, MUZZLE, NOSE, EYE, IRIS, EAR = range(1, 7)  # label values; 0 is the background


class Dice:
    """A row of uniform numbers, used up one by one; each trait takes its own, so identities are smooth in them."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self._numbers: Iterator[float] = iter(numbers)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def chance(self, probability: float) -> bool:
        return next(self._numbers) < probability

    def pick(self, n: int) -> int:
        return min(int(next(self._numbers) * n), n - 1)


def lch(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """sRGB in [0, 1] of an OKLCh colour (Ottosson 2020), hue in turns, clipped to the gamut."""
    a, b = chroma * math.cos(math.tau * hue), chroma * math.sin(math.tau * hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.array([
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    ]).clip(0, 1)  # fmt: skip
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def turn(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotation about x, then y, then z (radians)."""
    (sx, sy, sz), (cx, cy, cz) = np.sin([pitch, yaw, roll]), np.cos([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass(frozen=True, kw_only=True)
class Part:
    """One ellipsoid while a head is being made."""

    centre: np.ndarray
    radii: np.ndarray
    label: int
    colours: tuple[np.ndarray, ...]  # surface, cap, inner cap (missing ones repeat the last)
    pose: np.ndarray  # rotation: columns are the ellipsoid's axes
    cap_label: int = 0  # 0: as label
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    cap: tuple[float, float] = (2.0, 2.0)  # cosines; 2 is never reached
    gloss: tuple[float, float] = (0.07, 8.0)
    coat: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Coat:
    """The colours of an identity."""

    fur: np.ndarray
    light: np.ndarray
    dark: np.ndarray
    mark: np.ndarray
    inner_ear: np.ndarray
    nose: np.ndarray
    irises: tuple[np.ndarray, np.ndarray]
    background: np.ndarray


def colours_of(dice: Dice) -> Coat:
    hue, chroma = dice.between(0, 1), dice.between(0.03, 0.14)
    lightness = dice.between(0.56, 0.80)
    light = lch(min(lightness + dice.between(0.10, 0.20), 0.95), 0.6 * chroma, hue)
    darker = dice.chance(0.65)
    step = dice.between(0.16, 0.28)
    mark_hue = hue + dice.between(-0.10, 0.10)
    mark = lch(lightness - step if darker else min(lightness + step, 0.95), chroma * dice.between(0.5, 1.1), mark_hue)
    pink = dice.between(0.0, 0.06)
    inner_ear = lch(dice.between(0.66, 0.80), dice.between(0.06, 0.11), pink)
    nose = lch(dice.between(0.12, 0.30), 0.03, pink) if dice.chance(0.75) else lch(0.5, 0.10, pink)
    left = lch(dice.between(0.45, 0.68), dice.between(0.08, 0.16), dice.between(0.0, 1.0))
    other = lch(0.6, 0.13, dice.between(0.0, 1.0))
    irises = (left, other if dice.chance(0.08) else left)  # odd eyes are rare
    apart = dice.between(0.25, 0.75)  # the background's hue keeps away from the coat's
    background = lch(dice.between(0.40, 0.72), dice.between(0.02, 0.09), hue + apart)
    fur, dark = lch(lightness, chroma, hue), lch(lightness - 0.10, chroma, hue)
    return Coat(
        fur=fur, light=light, dark=dark, mark=mark, inner_ear=inner_ear, nose=nose, irises=irises,
        background=background,
    )  # fmt: skip


def _on(skull: np.ndarray, direction: tuple[float, float, float], depth: float = 1.0) -> np.ndarray:
    """The point of the skull's surface in this direction of its unit ball; depth < 1 lies below the surface."""
    unit = np.asarray(direction)
    return skull * unit / np.linalg.norm(unit) * depth


def _ear(kind: int, side: int, skull: np.ndarray, dice: Dice, coat: Coat) -> list[Part]:
    """Two ellipsoids: the ear's body, and its tip or root. side is -1 or 1; both sides roll the same dice."""
    size, lean, look = dice.between(0.88, 1.15), dice.between(-0.12, 0.18), dice.between(0.0, 0.35)
    long, wide = dice.between(0.9, 1.2), dice.between(0.85, 1.2)
    inside = {"colours": (coat.fur, coat.inner_ear), "label": EAR, "coat": 1.0}
    plain = {"colours": (coat.fur,), "label": EAR, "coat": 1.0}
    if kind == 0:
        pose = turn(yaw=side * look, roll=-side * (0.42 + lean))
        up = pose[:, 1] * size
        base = _on(skull, (side * 0.62, 0.80, -0.05), 0.90)
        return [
            Part(centre=base + 0.030 * up, radii=size * np.array([0.064 * wide, 0.085, 0.034]), pose=pose,
                  cap=(0.70, 2.0), **inside),
            Part(centre=base + 0.062 * long * up, radii=size * np.array([0.044 * wide, 0.096 * long, 0.026]),
                  pose=pose, cap=(0.80, 2.0), **inside),
        ]  # fmt: skip
    if kind == 1:
        pose = turn(pitch=-0.1, yaw=side * (0.25 - look), roll=side * (0.22 + lean))
        root = _on(skull, (side * 0.80, 0.62, -0.05), 0.97)
        drop = pose[:, 1] * -0.082 * long + np.array([side * 0.022, 0.0, 0.0])
        return [
            Part(centre=root + drop, radii=np.array([0.032, 0.118 * long, 0.068 * wide]) * size, pose=pose, **plain),
            Part(centre=root, radii=np.array([0.05, 0.04, 0.055]) * size, pose=pose, **plain),
        ]  # fmt: skip
    pose = turn(yaw=side * look, roll=-side * (0.6 + lean))
    root = _on(skull, (side * 0.72, 0.74, -0.10), 1.0)
    radius = 0.078 * size
    return [
        Part(centre=root + pose[:, 1] * 0.02, radii=radius * np.array([wide, 1.0, 0.42]), pose=pose,
              cap=(0.66, 2.0), **inside),
        Part(centre=root - pose[:, 1] * 0.02, radii=radius * np.array([0.8, 0.8, 0.45]), pose=pose, **plain),
    ]  # fmt: skip


def _face(kind: int, skull: np.ndarray, dice: Dice, coat: Coat) -> list[Part]:
    """Muzzle, jaw, nose and cheeks."""
    level = turn()
    length = dice.between(0.115, 0.150) if kind == 1 else dice.between(0.070, 0.098)
    wide, high, low = dice.between(0.075, 0.105), dice.between(0.052, 0.070), dice.between(0.25, 0.45)
    droop = dice.between(0.05, 0.25)
    snout = turn(pitch=droop)
    root = _on(skull, (0.0, -low, 1.0), 0.84)
    tip = root + snout[:, 2] * length
    nose = np.array([dice.between(0.028, 0.040), dice.between(0.021, 0.028), 0.024])
    cheek, puff = dice.between(0.070, 0.098), dice.between(0.0, 0.9)
    parts = [
        Part(centre=root, radii=np.array([wide, high, length]), label=MUZZLE, colours=(coat.light,), pose=snout),
        Part(centre=root + snout @ np.array([0.0, -0.55 * high, 0.0]),
              radii=np.array([0.72 * wide, 0.75 * high, 0.80 * length]),
              label=MUZZLE, colours=(0.93 * coat.light,), pose=snout),
        Part(centre=tip + snout[:, 1] * 0.38 * high - snout[:, 2] * 0.010, radii=nose, label=NOSE,
              colours=(coat.nose,), pose=snout, gloss=(0.65, 30.0)),
    ]  # fmt: skip
    fluff = coat.light * puff + coat.fur * (1 - puff)
    for side in (-1, 1):
        place = _on(skull, (side * 0.62, -0.48, 0.62), 0.70)
        radii = cheek * np.array([1.05, 0.80, 0.9])
        parts.append(Part(centre=place, radii=radii, label=HEAD, colours=(fluff,), pose=level, coat=1.0))
    return parts


def _eyes(skull: np.ndarray, dice: Dice, coat: Coat) -> list[Part]:
    """Eyeballs with iris and pupil, and lids."""
    apart, height = dice.between(0.38, 0.52), dice.between(0.16, 0.34)
    radius, sunk = dice.between(0.038, 0.050), dice.between(0.90, 0.97)
    gaze, iris, pupil = dice.between(-0.12, 0.12), dice.between(0.62, 0.74), dice.between(0.86, 0.93)
    lid = dice.between(0.25, 0.75)
    white, black = lch(0.97, 0.01, 0.2), lch(0.12, 0.0, 0.0)
    parts = []
    for side, colour in zip((-1, 1), coat.irises, strict=True):
        place = _on(skull, (side * apart, height, 1.0), sunk)
        look = np.array([side * (0.16 + gaze), 0.05, 1.0])
        axis = look / np.linalg.norm(look)
        parts.append(
            Part(centre=place, radii=np.full(3, radius), label=EYE, cap_label=IRIS, colours=(white, colour, black),
                  pose=turn(), axis=tuple(axis), cap=(iris, pupil), gloss=(1.0, 60.0))
        )  # fmt: skip
        shift = radius * np.array([side * 0.06, 0.55 - 0.35 * lid, -0.42])
        parts.append(
            Part(centre=place + shift, radii=radius * np.array([1.16, 1.02, 1.02]), label=HEAD, colours=(coat.dark,),
                  pose=turn(), coat=1.0)
        )  # fmt: skip
    return parts


def parts_of(kind: int, dice: Dice, coat: Coat) -> tuple[list[Part], np.ndarray]:
    """All ellipsoids of a head whose skull is centred at the origin, and the skull's radii."""
    skull = np.array([dice.between(0.180, 0.208), dice.between(0.166, 0.196), dice.between(0.165, 0.190)])
    rolls = [dice.between(0, 1) for _ in range(5)]
    tuft, swirl = dice.between(0.5, 1.25), dice.between(-0.5, 0.5)
    crown = turn(pitch=0.15, yaw=swirl)
    parts = [Part(centre=np.zeros(3), radii=skull, label=HEAD, colours=(coat.fur,), pose=turn(), coat=1.0)]
    parts += _face(kind, skull, dice, coat)
    parts += _eyes(skull, dice, coat)
    parts += _ear(kind, -1, skull, Dice(rolls), coat) + _ear(kind, 1, skull, Dice(rolls), coat)
    parts.append(
        Part(centre=_on(skull, (0.0, 1.0, 0.30), 0.97), radii=tuft * np.array([0.034, 0.026, 0.060]), label=HEAD,
              colours=(coat.mark,), pose=crown)
    )  # fmt: skip
    return parts, skull


def markings_of(skull: np.ndarray, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii, [4, 3] each, of the ellipsoids within which the coat has its second colour.

    Patches, a blaze between the eyes, a mask around one eye or both, or none.
    """
    style = dice.pick(5)
    places = np.array(
        [_on(skull, (dice.between(-1, 1), dice.between(-0.4, 1.0), dice.between(-1, 1)), 0.95) for _ in range(4)]
    )
    radii = np.array([np.full(3, dice.between(0.065, 0.125)) for _ in range(4)])
    if style == 0:  # a blaze, and two patches behind
        places[0], radii[0] = (0.0, 0.06, 0.12), (dice.between(0.022, 0.045), 0.20, 0.16)
        radii[3] = 1e-3
    elif style == 1:  # a mask around the eyes
        for i, side in enumerate((-1, 1)):
            places[i], radii[i] = _on(skull, (side * 0.50, 0.22, 1.0), 0.98), dice.between(0.066, 0.088)
        radii[3] = 1e-3
    elif style == 2:  # one eye, one ear
        side = 1 if dice.chance(0.5) else -1
        places[0], radii[0] = _on(skull, (side * 0.52, 0.30, 1.0), 0.98), dice.between(0.072, 0.105)
        places[1], radii[1] = _on(skull, (-side * 0.85, 0.95, -0.1), 1.15), dice.between(0.10, 0.15)
    elif style == 3 and dice.chance(0.5):  # plain
        radii[:] = 1e-3
    return places, radii
