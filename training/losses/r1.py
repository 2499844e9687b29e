"""The gradient penalty on real images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from training.step import Step


@dataclass(frozen=True)
class R1Penalty:
    """gamma / 2 |dD(x, c) / dx|^2 (R1, Mescheder et al. 2018), over all pictures that D sees.

    The pictures enter as separate leaves: for a dual discriminator the raw image is not taken as a function of the
    image. The gradient goes through the critic's blur and augmentation.
    """

    gamma: float  # strength; grows with the number of pixels
    group: str = "real"
    critic: str = "D"
    formula = "gamma/2 |dD(x, c)/dx|^2"
    differentiates_images = True

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        real = step.real(self.critic)
        leaves = [getattr(real, name) for name in step.nets[step.critics[self.critic].net].sees]
        score = step.score(real, step.batch.condition, "real", self.critic).score
        slopes = torch.autograd.grad(score.sum(), leaves, create_graph=True)
        penalty = torch.stack([slope.square().sum(dim=(1, 2, 3)) for slope in slopes]).sum(dim=0)
        step.report("r1", penalty)
        return penalty * (self.gamma / 2)
