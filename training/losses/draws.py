"""What a phase feeds its nets: latents, labels and cameras, drawn by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from training.contracts import Batch, Camera, Condition, Draws, Inputs
from training.schedules import ramp


def random_condition(batch: Batch, draws: Draws) -> Condition:
    """Labels and camera of a random item of the data set for each image, as StyleGAN2-ada and EG3D draw them."""
    if batch.pool is None:
        return batch.condition
    return batch.pool.conditions(draws.integers("item", len(batch.pool)).cpu()).to(batch.image.device)


def style_mixing(
    z_dim: int, probability: float, draws: Draws, nets: Mapping[str, nn.Module], net: str
) -> tuple[Tensor, int] | None:
    """With this probability, one coin for the whole batch: second latents, and the style vector from which on they
    are used, any but the first (StyleGAN, Karras et al. 2019, section 3.1)."""
    own = replace(draws, device="cpu")
    if probability == 0 or own.uniform("mixing", per="batch") >= probability:
        return None
    rows = nets[net].mean_codes().num_rows  # pyright: ignore
    first = 1 + int(own.integers("mixing.first", rows - 1, per="batch"))
    return draws.normal("mixing.z", (z_dim,)), first


@dataclass(frozen=True)
class LatentAndLabel:
    """A latent, and the labels of a random item for the generator and the critic (StyleGAN2-ada).

    mixing: probability of style mixing.
    """

    z_dim: int
    mixing: float = 0.0
    net: str = "G"

    def __call__(self, batch: Batch, draws: Draws, nimg: int, nets: Mapping[str, nn.Module]) -> Inputs:
        other = random_condition(batch, draws)
        return Inputs(
            z=draws.normal("z", (self.z_dim,)), condition=other, camera=other.camera, label=other.label,
            mixing=style_mixing(self.z_dim, self.mixing, draws, nets, self.net),
        )  # fmt: skip


@dataclass(frozen=True)
class PoseSwap:
    """A latent and a random camera; the generator is told another image's camera now and then (EG3D, section 4.4).

    With a probability that falls from 1 to `probability` over fade_kimg, mapping() gets the camera of the previous
    image of the batch, so that a scene cannot be shaped by the camera it is seen from. probability None: mapping()
    gets no camera at all. per="batch" tosses one coin for all images, as EG3D does for its density regulariser.
    mixing: probability of style mixing.
    """

    z_dim: int
    probability: float | None = 0.5
    fade_kimg: float = 1000
    per: Literal["item", "batch"] = "item"
    mixing: float = 0.0
    net: str = "G"

    def chance(self, nimg: int) -> float:
        return 0.0 if self.probability is None else ramp(nimg, self.fade_kimg, 1.0, self.probability)

    def __call__(self, batch: Batch, draws: Draws, nimg: int, nets: Mapping[str, nn.Module]) -> Inputs:
        own = random_condition(batch, draws)
        z = draws.normal("z", (self.z_dim,))
        camera = own.camera
        if self.probability is None:
            camera = None
        elif camera is not None:
            previous = random_condition(batch, draws.neighbours()).camera
            swap = draws.uniform("swap", per=self.per) < self.chance(nimg)
            swapped = torch.where(swap.reshape(-1, 1), previous.label(), camera.label())  # pyright: ignore
            camera = Camera.from_label(swapped)
        return Inputs(
            z=z, condition=Condition(camera=camera, label=own.label), camera=own.camera, label=own.label,
            mixing=style_mixing(self.z_dim, self.mixing, draws, nets, self.net),
        )  # fmt: skip
