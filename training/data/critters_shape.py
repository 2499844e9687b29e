"""Identity of a critter: proportions, colours, markings, as a pure function of (seed, item).

A head is a union of ellipsoids |A (p - centre)| <= 1, in scene units, facing +z with y up. Its bounding ball is centred
at the origin and has radius REACH at most, so that the head is inside the frame of EG3D's FFHQ camera from every
direction. Used by critters.py and critters_render.py only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from torch_utils.draws import Draws
from torch_utils.record import Record, cat

from .critters_anatomy import Dice, Part, colours_of, markings_of, parts_of

LABELS = ("background", "head", "muzzle", "nose", "eyes", "iris", "ears")
PALETTE = ((0, 0, 0), (204, 153, 102), (255, 214, 165), (89, 60, 60), (255, 255, 255), (64, 160, 255), (160, 82, 45))
CLASSES = ("pointed", "floppy", "round")  # by their ears
REACH = 0.303  # the camera's cone holds a ball of radius 0.315 about the origin


@dataclass(frozen=True, kw_only=True)
class Head(Record):
    """Some heads: E ellipsoids and K solid markings each.

    A cap is the part of an ellipsoid's surface around its `axis` (in the unit ball's coordinates q = A (p - centre))
    where q . axis > cos of the cap: iris and pupil on an eye, the inside of an ear.
    """

    centre: Float[Tensor, "N E 3"]
    to_ball: Float[Tensor, "N E 3 3"]  # A
    label: Int[Tensor, "N E"]
    cap_label: Int[Tensor, "N E"]
    colour: Float[Tensor, "N E 3 3"]  # of the surface, of the cap, of the inner cap; RGB in [0, 1]
    axis: Float[Tensor, "N E 3"]
    cap: Float[Tensor, "N E 2"]  # cosines of the cap and of the inner cap
    gloss: Float[Tensor, "N E 2"]  # strength and exponent of the highlight
    coat: Float[Tensor, "N E"]  # 1 where markings show, 0 elsewhere
    mark_centre: Float[Tensor, "N K 3"]
    mark_radii: Float[Tensor, "N K 3"]
    mark_colour: Float[Tensor, "N 3"]
    background: Float[Tensor, "N 3"]
    kind: Int[Tensor, "N"]  # class: index into CLASSES

    def mirrored(self) -> Self:
        """The heads' reflections in the plane x = 0."""
        flip = torch.tensor([-1.0, 1.0, 1.0])
        return replace(
            self, centre=self.centre * flip, to_ball=self.to_ball * flip, mark_centre=self.mark_centre * flip
        )

    def level(self, points: Float[Tensor, "N P 3"]) -> Float[Tensor, "N P"]:
        """min over ellipsoids of |A (p - centre)|: below 1 inside the head, 1 on its surface, above 1 outside."""
        ball = torch.einsum("neij,npej->npei", self.to_ball, points[:, :, None] - self.centre[:, None])
        return ball.norm(dim=-1).amin(dim=-1)


def _directions(n: int) -> np.ndarray:
    """n directions spread evenly over the sphere (Fibonacci lattice), [n, 3]."""
    i = np.arange(n) + 0.5
    level, angle = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - level**2)
    return np.stack([ring * np.cos(angle), level, ring * np.sin(angle)], axis=1)


_AROUND = _directions(400)


def _fit(parts: list[Part], size: float) -> tuple[np.ndarray, float]:
    """Shift and scale after which the head's bounding ball about the origin has radius size * REACH.

    The support function of an ellipsoid in direction u is u . centre + |(pose diag(radii))^T u|.
    """
    axes = np.concatenate([p.pose * p.radii for p in parts], axis=1)
    reach = np.sqrt(np.square(_AROUND @ axes).reshape(len(_AROUND), -1, 3).sum(axis=2))
    support = (_AROUND @ np.stack([p.centre for p in parts], axis=1) + reach).max(axis=1)
    top, bottom = support[_AROUND[:, 1].argmax()], support[_AROUND[:, 1].argmin()]
    front, back = support[_AROUND[:, 2].argmax()], support[_AROUND[:, 2].argmin()]
    shift = np.array([0.0, (bottom - top) / 2, (back - front) / 2])
    return shift, size * REACH / (support + _AROUND @ shift).max()


def _dice(seed: int, item: int) -> Dice:
    return Dice(Draws(seed=seed, phase="critters", items=(item,)).uniform("identity", (96,))[0].tolist())


def kind_of(seed: int, item: int) -> int:
    """Class of an item, without making its head."""
    return _dice(seed, item).pick(len(CLASSES))


def _head(seed: int, item: int) -> Head:
    dice = _dice(seed, item)
    kind, size = dice.pick(len(CLASSES)), dice.between(0.94, 1.0)
    coat = colours_of(dice)
    parts, skull = parts_of(kind, dice, coat)
    mark_centre, mark_radii = markings_of(skull, dice)
    shift, scale = _fit(parts, size)

    def table(rows: Sequence[object] | np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(rows, dtype=np.float32))[None]

    return Head(
        centre=table([(p.centre + shift) * scale for p in parts]),
        to_ball=table([p.pose.T / (p.radii[:, None] * scale) for p in parts]),
        label=torch.tensor([[p.label for p in parts]]),
        cap_label=torch.tensor([[p.cap_label or p.label for p in parts]]),
        colour=table([(*p.colours, p.colours[-1], p.colours[-1])[:3] for p in parts]),
        axis=table([p.axis for p in parts]),
        cap=table([p.cap for p in parts]),
        gloss=table([p.gloss for p in parts]),
        coat=table([p.coat for p in parts]),
        mark_centre=table((mark_centre + shift) * scale),
        mark_radii=table(mark_radii * scale),
        mark_colour=table(coat.mark),
        background=table(coat.background),
        kind=torch.tensor([kind]),
    )


def heads(seed: int, items: Sequence[int]) -> Head:
    """The heads of these items of this seed."""
    return cat([_head(seed, item) for item in items])
