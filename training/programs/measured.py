"""A generator beside its data, shown to metrics in the three ways they ask for (metrics/pictures.py)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metrics.pictures import Pictures, rgb
from torch_utils.draws import Draws
from training.contracts import CameraRig, Condition, GeneratorOutput, RenderOptions

from .seeds import latent


@dataclass(frozen=True, kw_only=True)
class MeasuredGenerator:
    """What is measured, at psi 1.

    Fakes get the label and camera of a random item of the data, as StyleGAN2 and EG3D measure FID; where the data have
    no cameras, the rig's. Pictures are rounded to 8 bits, like files; grey ones repeat their channel, as those metrics
    do. A picture follows from (seed, its number) alone, whatever the batch.
    """

    G: Any  # contracts.Generator, in eval mode
    rig: CameraRig
    data: Any  # training.data: len(), sample(item), conditions(items)
    options: RenderOptions  # how the generator renders by now: options_at(nimg).still()
    seed: int = 0
    batch: int = 16
    device: torch.device | str = "cpu"

    @property
    def camera_sampling(self) -> str:
        """Where the cameras of fakes come from, for the record."""
        return "data" if self._conditions([0]).camera is not None else f"rig ({self.rig.kind})"

    @torch.no_grad()
    def reals(self, n: int) -> Iterator[Pictures]:
        for items in self._parts(range(min(n, len(self.data)))):
            samples = [self.data.sample(item) for item in items]
            images = torch.stack([torch.as_tensor(sample.image) for sample in samples]).to(self.device)
            told = self._conditions(items)
            yield Pictures(image=rgb(images.float() / 127.5 - 1), camera=told.camera, label=told.label)

    @torch.no_grad()
    def fakes(self, n: int) -> Iterator[Pictures]:
        for items in self._parts(range(n)):
            draws = Draws(seed=self.seed, phase="metrics", items=items, batch=n, device=self.device)
            told = self._conditions(draws.integers("item", len(self.data)).tolist())
            camera = told.camera if told.camera is not None else self.rig.sample(draws).to(self.device)
            codes = self.G.mapping(draws.normal("z", (self.G.z_dim,)), replace(told, camera=camera))
            output = self.G.synthesis(codes, camera, replace(self.options, noise="random").using(draws))
            yield self._pictures(output, replace(told, camera=camera))

    @torch.no_grad()
    def views(self, seeds: Sequence[int], yaws: Sequence[float]) -> Iterator[tuple[Pictures, ...]]:
        """Classes go round: seed s has the label of item s of the data."""
        for part in self._parts(seeds):
            z = torch.cat([latent(seed, self.G.z_dim) for seed in part]).to(self.device)
            label = self._conditions([seed % len(self.data) for seed in part]).label
            told = Condition(camera=self.rig.mean.expand(len(part)).to(self.device), label=label)
            codes = self.G.mapping(z, told)
            scene = self.G.scene(codes, self.options) if hasattr(self.G, "scene") else None
            shown = []
            for yaw in yaws:
                camera = self.rig.at(self.rig.yaw_mean + yaw, self.rig.pitch_mean).expand(len(part)).to(self.device)
                if scene is None:
                    output = self.G.synthesis(codes, None, self.options)
                else:
                    output = self.G.render(scene, camera, self.options)
                shown.append(self._pictures(output, replace(told, camera=camera)))
            yield tuple(shown)

    def _parts(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(numbers), self.batch):
            yield list(numbers[start : start + self.batch])

    def _conditions(self, items: Sequence[int]) -> Condition:
        return self.data.conditions(torch.tensor(items)).to(self.device)

    def _pictures(self, output: GeneratorOutput, told: Condition) -> Pictures:
        labels = None if output.label_logits is None else output.label_logits.argmax(dim=1, keepdim=True)
        depth = output.depth
        if depth is not None and output.opacity is not None:
            depth = torch.where(output.opacity > 0.5, depth, 0.0)
        return Pictures(
            image=rgb(rounded(output.image)), camera=told.camera, depth=depth, label=told.label, label_map=labels
        )  # fmt: skip


def rounded(image: Tensor) -> Tensor:
    """The image as an 8-bit file would hold it: clamp(x * 127.5 + 128, 0, 255), truncated, back in [-1, 1]."""
    return (image.float() * 127.5 + 128).clamp(0, 255).floor() / 127.5 - 1
