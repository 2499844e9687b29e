"""Augmentation of what a discriminator sees, with a strength that follows how sure it is of real pictures (ADA)."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from dnnlib.options import nearest
from training.contracts import Condition, Draws, GeneratorOutput
from training.layers.augment_draws import Augmentations, Dice, flips
from training.layers.augment_pipe import augment
from training.layers.resize import resize

PARTS = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
PIPES = (*PARTS, "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")


def transformations(pipe: str) -> tuple[str, ...]:
    """The transformations of a pipe: one of PARTS, or the first letters of some, in their order."""
    if pipe not in PIPES:
        raise ConfigError(f"augpipe={pipe}: there is no such pipe{nearest(pipe, PIPES)}")
    parts = (pipe,) if pipe in PARTS else tuple(PARTS)[: len(pipe)]
    return tuple(name for part in parts for name in PARTS[part])


class Augmentation:
    """Transforms pictures with probability p; with a target, p grows while mean sign(D(x)) of reals is above it.

    It adapts every `interval` iterations, by at most the images seen since then over kimg thousand (Karras et al. 2020,
    section 3.2). An image and its raw image are transformed alike, the raw one at the size of the image. What D is told
    of a picture's camera is mirrored with the picture; StyleGAN2-ada and EG3D leave it (mirrors_camera=False).
    pipe: see transformations(). settings: changed fields of Augmentations; null changes nothing.
    """

    def __init__(
        self, *, pipe: str = "bgc", settings: Mapping[str, Any] | None = None, p: float = 0.0,
        target: float | None = None, interval: int = 4, kimg: float = 500.0, mirrors_camera: bool = True,
    ) -> None:  # fmt: skip
        known = [field.name for field in fields(Augmentations)]
        for name in settings or {}:
            if name not in known:
                raise ConfigError(f"settings.{name}: no transformation has such a number{nearest(name, known)}")
        numbers: dict[str, Any] = dict.fromkeys(transformations(pipe), 1)
        numbers |= {name: value for name, value in (settings or {}).items() if value is not None}
        self.settings = Augmentations(**numbers)
        self.p, self.target, self.interval, self.kimg = p, target, interval, kimg
        self.mirrors_camera = mirrors_camera
        self._heard: Tensor | None = None  # this iteration's sum and count of signs on this rank
        self._signs = torch.zeros(2, dtype=torch.float64)  # the same since p last changed, of all ranks

    def look(self, output: GeneratorOutput, draws: Draws) -> GeneratorOutput:
        """The pictures transformed."""
        shown, raw = output.image, output.image_raw
        if raw is not None:
            shown = torch.cat([shown, resize(raw, shown.shape[-1])], dim=1)
        shown = augment(shown, self.settings, Dice(draws, self.p), draws)
        image, rest = shown.split([output.image.shape[1], shown.shape[1] - output.image.shape[1]], dim=1)
        return replace(output, image=image, image_raw=None if raw is None else resize(rest, raw.shape[-1]))

    def told(self, told: Condition, draws: Draws) -> Condition:
        """What holds of the pictures that look() has transformed with the same draws."""
        if told.camera is None or not (self.mirrors_camera and self.settings.xflip):
            return told
        mirrored, camera = told.camera.mirrored().label(), told.camera.label()
        chosen = flips(self.settings, Dice(draws, self.p)).to(camera.device)
        return replace(told, camera=type(told.camera).from_label(torch.where(chosen[:, None], mirrored, camera)))

    def hear(self, score: Float[Tensor, "N"]) -> None:
        """Take note of what D says of real pictures."""
        if self.target is not None:
            signs = score.detach().sign().double()
            heard = torch.stack([signs.sum(), torch.full_like(signs[0], len(signs))])
            self._heard = heard if self._heard is None else self._heard + heard

    def end_iteration(self, iteration: int, batch: int, all_reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Adapt p when it is time. iteration counts from 1. Returns what there is to report."""
        if self._heard is not None:
            self._signs = self._signs.to(self._heard.device) + all_reduce(self._heard)
            self._heard = None
        if self.target is not None and iteration % self.interval == 0:
            total, count = self._signs.tolist()
            excess = total / count - self.target if count else 0.0
            step = batch * self.interval / (self.kimg * 1000)
            self.p = max(self.p + step * ((excess > 0) - (excess < 0)), 0.0)
            self._signs = torch.zeros_like(self._signs)
        return {"p": self.p}

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p, "signs": self._signs.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.p, self._signs = float(state["p"]), state["signs"].clone()
