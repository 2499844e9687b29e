"""Regularisers of a density field. Points are in scene units, densities raw."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from training.step import Step


def raw_densities(
    step: Step, net: str, one: Float[Tensor, "N P 3"], other: Float[Tensor, "N P 3"]
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """What the field says at two sets of points, asked at once."""
    found = step.nets[net].query(step.scene(net), torch.cat([one, other], dim=1)).raw_density
    return found[:, : one.shape[1]], found[:, one.shape[1] :]


@dataclass(frozen=True)
class DensityTV:
    """weight * mean |s(p) - s(p + e)|, e ~ N(0, std^2): raw densities of near points agree (EG3D, supplement).

    Points are uniform in [-extent, extent]^3. EG3D's extent is 1 whatever the size of its box: half of the points lie
    outside, and training parity needs that.
    """

    weight: float = 0.25
    std: float = 0.004  # scene units
    points: int = 1000  # an image
    extent: float = 1.0  # scene units
    group: str = "density"
    net: str = "G"
    formula = "lambda |s(p) - s(p + e)|, e ~ N(0, std^2)"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        here = (2 * step.draws.uniform("density.points", (self.points, 3)) - 1) * self.extent
        there = here + self.std * step.draws.normal("density.shift", (self.points, 3))
        one, other = raw_densities(step, self.net, here, there)
        return self.weight * (one - other).abs().mean(dim=1)


@dataclass(frozen=True)
class MonotonicDensity:
    """weight * mean max(s(p) - s(p - d e_z), 0): raw density does not fall on the way in from the front (EG3D's code).

    The front is where z is largest. detach: what lies in front is taken as it is, and only the density behind it
    moves. Points as in DensityTV. EG3D's --reg_type=monotonic-detach and monotonic-fixed have this beside a DensityTV.
    """

    weight: float = 10.0
    distance: float = 1 / 256  # d, scene units
    detach: bool = False
    points: int = 2000  # an image
    extent: float = 1.0  # scene units
    group: str = "monotonic"
    net: str = "G"

    @property
    def formula(self) -> str:
        return f"lambda max({'sg ' if self.detach else ''}s(p) - s(p - d e_z), 0)"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        front = (2 * step.draws.uniform("monotonic.points", (self.points, 3)) - 1) * self.extent
        behind = front - front.new_tensor([0.0, 0.0, self.distance])
        before, after = raw_densities(step, self.net, front, behind)
        before = before.detach() if self.detach else before
        return self.weight * (before - after).relu().mean(dim=1)
