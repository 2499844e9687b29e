"""What the probe learns from: two spoilt views of every critter.

One view is the batch's own; the other is rendered on demand from a camera of its own. Both are asked for pose, class,
label map and damage; together they teach the identity embedding which pictures show the same head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dnnlib.errors import ConfigError
from torch_utils.record import Record, cat
from training.contracts import Batch, Camera, CameraRig, Draws
from training.step import Step


@runtime_checkable
class ViewPool(Protocol):
    """A data set that shows any item from any camera, with its label map (training/data/critters.py)."""

    def view(self, items: Sequence[int], camera: Camera, resolution: int | None = None) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """Spoils pictures in the ways in which generators' pictures are spoilt. Strengths are the most that is drawn."""

    background: float = 0.5  # share of pictures that get another plain background
    tint: float = 0.2  # change of gain and offset of each colour
    stains: float = 0.15  # standard deviation of smooth stains, of each kind
    grains: Sequence[int] = (4, 8, 16)  # kinds of stains: how many to a side
    blur: float = 1.5  # standard deviation of a Gaussian blur, pixels (of the coarse picture, if coarse)
    noise: float = 0.1  # standard deviation of white noise
    coarse: float = 0.5  # share of pictures brought to half the resolution and back

    def __call__(
        self, image: Float[Tensor, "N 3 R R"], label_map: Int[Tensor, "N 1 R R"], draws: Draws
    ) -> tuple[Float[Tensor, "N 3 R R"], Float[Tensor, "N damage"]]:
        """The spoilt pictures, and how spoilt they are: shares of the strengths of stains, blur and noise; coarse."""

        def share(name: str) -> Float[Tensor, "N 1 1 1"]:
            return draws.uniform(name, (1, 1, 1))

        def colour(name: str) -> Float[Tensor, "N 3 1 1"]:
            return 2 * draws.uniform(name, (3, 1, 1)) - 1

        resolution = image.shape[2]
        image = torch.where((label_map == 0) & (share("replaced") < self.background), colour("backdrop"), image)
        image = image * (1 + self.tint * colour("gain")) + self.tint * colour("offset")
        stains = [share(f"stains{grain}") for grain in self.grains]
        for grain, strength in zip(self.grains, stains, strict=True):
            stain = F.interpolate(draws.normal(f"stain{grain}", (3, grain, grain)), resolution, mode="bicubic")
            image = image + self.stains * strength * stain
        blur, noise, coarse = share("blur"), share("noise"), share("coarse") < self.coarse
        image = gaussian_blur(image, (self.blur * blur * (1 + coarse)).flatten(), reach=round(4 * self.blur))
        image = image + self.noise * noise * draws.normal("noise_map", image.shape[1:])
        halved = F.interpolate(F.avg_pool2d(image, 2), resolution, mode="bilinear")
        damage = torch.cat([*stains, blur, noise, coarse], dim=1).flatten(1)
        return torch.where(coarse, halved, image).clamp(-1, 1), damage


def gaussian_blur(image: Float[Tensor, "N C H W"], sigma: Float[Tensor, "N"], reach: int) -> Float[Tensor, "N C H W"]:
    """Blur each picture by its own standard deviation (pixels), with 2 reach + 1 taps; edges are repeated."""
    n, c, height, width = image.shape
    taps = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.softmax(-taps.square() / (2 * sigma[:, None].square() + 1e-6), dim=1)
    kernel = kernel.repeat_interleave(c, dim=0)[:, None]
    x = F.pad(image, (reach, reach, reach, reach), mode="replicate").reshape(1, n * c, height + 2 * reach, -1)
    x = F.conv2d(F.conv2d(x, kernel[:, :, :, None], groups=n * c), kernel[:, :, None, :], groups=n * c)
    return x.reshape(n, c, height, width)


@dataclass(frozen=True, kw_only=True)
class Lesson(Record):
    """Spoilt pictures, and what the probe should say about them."""

    image: Float[Tensor, "N 3 R R"]
    damage: Float[Tensor, "N damage"]
    direction: Float[Tensor, "N 3"]
    kind: Int[Tensor, "N"]
    label_map: Int[Tensor, "N 1 R R"]


@dataclass(frozen=True, kw_only=True)
class ProbeLoss:
    """Pose, class, label map, damage and identity in two spoilt views, as one weighted sum.

    Pose: chord between directions. Class: cross-entropy. Label map: cross-entropy over pixels, each label weighted.
    Damage: squared error; it keeps the features from growing blind to what spoils pictures. Identity: InfoNCE (van den
    Oord et al. 2018) between the views, both ways; the negatives are the other items of the micro-batch, so this part
    depends on batch_gpu. The data set must give labels, label maps and views on demand.
    """

    rigs: Sequence[CameraRig]  # where second views are taken from, one of these for each item
    dirt: Dirt
    label_weights: Sequence[float]
    pose: float = 5.0
    category: float = 1.0
    labels: float = 3.0
    damage: float = 3.0
    identity: float = 0.5
    temperature: float = 0.1
    net: str = "P"
    group: str = "views"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        lesson = cat(self.lessons(step.batch, step.draws))
        seen = step.nets[self.net](lesson.image)
        weights = torch.tensor(self.label_weights, device=lesson.image.device)
        pixels = F.cross_entropy(seen.label_logits, lesson.label_map[:, 0], weights, reduction="none")
        parts = {
            "pose": (seen.direction - lesson.direction).square().sum(dim=1).add(1e-6).sqrt(),
            "category": F.cross_entropy(seen.class_logits, lesson.kind, reduction="none"),
            "labels": pixels.mean(dim=(1, 2)),
            "damage": (seen.damage - lesson.damage).square().mean(dim=1),
            "identity": self._contrast(*seen.embedding.chunk(2)).repeat(2),
        }
        total = torch.zeros(len(step.batch), device=lesson.image.device)
        for name, values in parts.items():
            both = torch.stack(values.chunk(2)).mean(dim=0)
            step.report(f"Loss/probe/{name}", both.detach())
            total = total + getattr(self, name) * both
        return total

    def lessons(self, batch: Batch, draws: Draws) -> list[Lesson]:
        """The batch's own views, and second ones; mirrored alike."""
        told, pool, device = batch.condition, batch.pool, batch.image.device
        if (
            told.camera is None or told.label is None or told.label_map is None or batch.item is None
            or not isinstance(pool, ViewPool)
        ):  # fmt: skip
            raise ConfigError("the probe learns from critters with labels: data=critters cond=True labels=labels.")
        other = pool.view(batch.item.tolist(), self._elsewhere(draws).to("cpu"), batch.image.shape[2]).to(device)
        flip, across = draws.uniform("mirror", (1,)) < 0.5, torch.tensor([-1.0, 1.0, 1.0], device=device)
        kind = told.label.argmax(dim=1)
        lessons = []
        for scope, image, labels, camera in (
            ("first", batch.image, told.label_map, told.camera),
            ("second", other.image, other.label_map, other.camera),
        ):
            image, labels = (torch.where(flip[:, :, None, None], t.flip(3), t) for t in (image, labels))
            image, damage = self.dirt(image, labels, draws.within(scope))
            direction = F.normalize(camera.position, dim=1)
            direction = torch.where(flip, direction * across, direction)
            lessons.append(Lesson(image=image, damage=damage, direction=direction, kind=kind, label_map=labels))
        return lessons

    def _elsewhere(self, draws: Draws) -> Camera:
        """A camera for every item, of a rig that is drawn too."""
        sampled = torch.stack([rig.sample(draws.within(f"rig{i}")).label() for i, rig in enumerate(self.rigs)])
        chosen = draws.integers("rig", len(self.rigs)).to(sampled.device)
        return Camera.from_label(sampled[chosen, torch.arange(len(chosen), device=sampled.device)])

    def _contrast(self, first: Float[Tensor, "N E"], second: Float[Tensor, "N E"]) -> Float[Tensor, "N"]:
        alike = first @ second.T / self.temperature
        own = torch.arange(len(alike), device=alike.device)
        return (F.cross_entropy(alike, own, reduction="none") + F.cross_entropy(alike.T, own, reduction="none")) / 2
