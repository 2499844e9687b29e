"""Regularisers of a density field."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from training.step import Step


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
        near = (2 * step.draws.uniform("density.points", (self.points, 3)) - 1) * self.extent
        far = near + self.std * step.draws.normal("density.shift", (self.points, 3))
        both = near.new_empty(near.shape[0], 2 * self.points, 3)
        both[:, : self.points], both[:, self.points :] = near, far
        density = step.nets[self.net].query(step.scene(self.net), both).raw_density
        difference = density[:, : self.points] - density[:, self.points :]
        return self.weight * difference.abs().mean(dim=1)
