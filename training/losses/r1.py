"""The gradient penalty on real images."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from training.step import Step


@dataclass(frozen=True)
class R1Penalty:
    """gamma / 2 |dD(x, c) / dx|^2 (R1, Mescheder et al. 2018), over all pictures that D sees.

    The pictures are differentiated by separately: for a dual discriminator the raw image is not taken as a function of
    the image. by="data" goes through the critic's blur and augmentation (StyleGAN2-ada, StyleGAN3); by="seen" takes the
    blurred and augmented pictures as x (EG3D's code).
    """

    gamma: float  # strength; grows with the number of pixels
    by: Literal["data", "seen"] = "data"
    group: str = "real"
    critic: str = "D"
    formula = "gamma/2 |dD(x, c)/dx|^2"
    differentiates_images = True

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        real = step.real(self.critic)
        score = step.score_real(self.critic).score
        x = real if self.by == "data" else step.seen(real, "real", self.critic)
        pictures = [getattr(x, name) for name in step.nets[step.critics[self.critic].net].sees]
        slopes = torch.autograd.grad(score.sum(), pictures, create_graph=True)
        penalty = torch.stack([slope.square().sum(dim=(1, 2, 3)) for slope in slopes]).sum(dim=0)
        step.report("r1", penalty)
        step.report("score/real", score)
        return penalty * (self.gamma / 2)
