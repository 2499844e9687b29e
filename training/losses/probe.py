"""What the probe learns from: two dirtied views of every critter.

One view is the batch's own; the other is rendered on demand from a camera of its own. Both are asked for pose, class
and label map; together they teach the identity embedding which pictures show the same head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dnnlib.errors import ConfigError
from training.contracts import Camera, CameraRig, Draws
from training.step import Step


@runtime_checkable
class ViewPool(Protocol):
    """A data set that shows any item from any camera, with its label map (training/data/critters.py)."""

    def view(self, items: Sequence[int], camera: Camera, resolution: int | None = None) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """Spoils pictures in the ways in which generators' pictures are spoilt. Every strength is the most that is drawn.

    All but mirroring happen to each view on its own, so that no embedding can be recognised by them.
    """

    background: float = 0.5  # share of pictures that get another plain background
    tint: float = 0.2  # change of gain and offset of each colour
    blotches: float = 0.2  # standard deviation of smooth stains, `grain` to a side
    grain: int = 8
    noise: float = 0.1  # standard deviation of white noise
    coarse: float = 0.5  # share of pictures brought to half the resolution and back
    blur: float = 1.5  # standard deviation of a Gaussian blur, pixels (of the coarse picture, if coarse)

    def __call__(
        self, image: Float[Tensor, "N 3 R R"], label_map: Int[Tensor, "N 1 R R"], draws: Draws
    ) -> Float[Tensor, "N 3 R R"]:
        def strength(name: str, most: float) -> Tensor:
            return draws.uniform(name, (1, 1, 1)) * most

        def either(name: str, channels: int = 3) -> Tensor:
            return 2 * draws.uniform(name, (channels, 1, 1)) - 1

        resolution = image.shape[2]
        replaced = (label_map == 0) & (draws.uniform("replaced", (1, 1, 1)) < self.background)
        image = torch.where(replaced, either("backdrop"), image)
        image = image * (1 + self.tint * either("gain")) + self.tint * either("offset")
        stains = F.interpolate(draws.normal("stains", (3, self.grain, self.grain)), resolution, mode="bicubic")
        image = image + strength("blotches", self.blotches) * stains
        coarse = draws.uniform("coarse", (1, 1, 1)) < self.coarse
        image = gaussian_blur(image, (strength("blur", self.blur) * (1 + coarse)).flatten(), round(4 * self.blur))
        image = image + strength("noise", self.noise) * draws.normal("noise_map", image.shape[1:])
        halved = F.interpolate(F.avg_pool2d(image, 2), resolution, mode="bilinear")
        return torch.where(coarse, halved, image).clamp(-1, 1)


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
class ProbeLoss:
    """Pose, class, label map and identity of two dirtied views, as one weighted sum.

    Pose: chord between directions. Class: cross-entropy. Label map: cross-entropy over pixels, each label weighted.
    Identity: InfoNCE (van den Oord et al. 2018) between the views, both ways; the negatives are the other items of
    the micro-batch, so this part depends on batch_gpu. The data set must give labels and label maps (cond=True,
    maps=labels), and views on demand.
    """

    rigs: Sequence[CameraRig]  # where second views are taken from, one of these for each item
    dirt: Dirt
    label_weights: Sequence[float]
    pose: float = 5.0
    category: float = 1.0
    labels: float = 3.0
    identity: float = 0.5
    temperature: float = 0.1
    net: str = "P"
    group: str = "views"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        image, label_map, truth, kind = self._views(step)
        seen = step.nets[self.net](image)
        weights = torch.tensor(self.label_weights, device=image.device)
        pixels = F.cross_entropy(seen.label_logits, label_map[:, 0], weights, reduction="none")
        parts = {
            "pose": (seen.direction - truth).square().sum(dim=1).add(1e-6).sqrt(),
            "category": F.cross_entropy(seen.class_logits, kind, reduction="none"),
            "labels": pixels.mean(dim=(1, 2)),
            "identity": self._contrast(*seen.embedding.chunk(2)).repeat(2),
        }
        total = torch.zeros(len(step.batch), device=image.device)
        for name, values in parts.items():
            both = torch.stack(values.chunk(2)).mean(dim=0)
            step.report(f"Loss/probe/{name}", both.detach())
            total = total + getattr(self, name) * both
        return total

    def _views(self, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, label maps, directions of the camera and classes of first and second views, [2N, ...] each."""
        told, pool = step.batch.condition, step.batch.pool
        if told.camera is None or told.label is None or told.label_map is None or not isinstance(pool, ViewPool):
            raise ConfigError("the probe learns from critters with labels and label maps: data=critters cond=True.")
        items, device = step.batch.item.tolist(), step.batch.image.device
        other = pool.view(items, self._elsewhere(step.draws).to("cpu"), step.batch.image.shape[2]).to(device)
        flip = step.draws.uniform("mirror", (1, 1, 1)) < 0.5
        views = []
        for scope, image, label_map, camera in (
            ("first", step.batch.image, told.label_map, told.camera),
            ("second", other.image, other.label_map, other.camera),
        ):
            image, label_map = (torch.where(flip, t.flip(3), t) for t in (image, label_map))
            toward = F.normalize(camera.position, dim=1)
            toward = torch.where(flip[:, 0, 0], toward * torch.tensor([-1.0, 1, 1], device=device), toward)
            views.append((self.dirt(image, label_map, step.draws.within(scope)), label_map, toward))
        image, label_map, toward = (torch.cat(both) for both in zip(*views, strict=True))
        return image, label_map, toward, told.label.argmax(dim=1).repeat(2)

    def _elsewhere(self, draws: Draws) -> Camera:
        """A camera for every item, of a rig that is drawn too."""
        sampled = torch.stack([rig.sample(draws.within(f"rig{i}")).label() for i, rig in enumerate(self.rigs)])
        chosen = draws.integers("rig", len(self.rigs)).to(sampled.device)
        return Camera.from_label(sampled[chosen, torch.arange(len(chosen))])

    def _contrast(self, first: Float[Tensor, "N E"], second: Float[Tensor, "N E"]) -> Float[Tensor, "N"]:
        alike = first @ second.T / self.temperature
        own = torch.arange(len(alike), device=alike.device)
        return (F.cross_entropy(alike, own, reduction="none") + F.cross_entropy(alike.T, own, reduction="none")) / 2
