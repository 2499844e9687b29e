"""The non-saturating logistic GAN loss (Goodfellow et al. 2014), as StyleGAN2 uses it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from training.step import Step


@dataclass(frozen=True)
class GeneratorLogistic:
    """softplus(-D(G(z, c), c))"""

    group: str = "fake"
    critic: str = "D"
    weight: float = 1.0
    formula = "softplus(-D(G(z, c), c))"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        score = step.score(step.fake(), step.inputs.told, "fake", self.critic).score
        step.report("score/fake", score)
        return self.weight * softplus(-score)


@dataclass(frozen=True)
class DiscriminatorLogistic:
    """softplus(D(G(z, c), c)) + softplus(-D(x, c)): DiscriminatorFake and DiscriminatorReal, where one pass will do"""

    group: str = "both"
    critic: str = "D"
    weight: float = 1.0
    formula = "softplus(D(G(z, c), c)) + softplus(-D(x, c))"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        fake, real = step.score_both(self.critic)
        step.report("score/fake", fake.score)
        step.report("score/real", real.score)
        return self.weight * (softplus(fake.score) + softplus(-real.score))


@dataclass(frozen=True)
class DiscriminatorFake:
    """softplus(D(G(z, c), c))"""

    group: str = "fake"
    critic: str = "D"
    weight: float = 1.0
    formula = "softplus(D(G(z, c), c))"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        score = step.score(step.fake().detach(), step.inputs.told, "fake", self.critic).score
        step.report("score/fake", score)
        return self.weight * softplus(score)


@dataclass(frozen=True)
class DiscriminatorReal:
    """softplus(-D(x, c))"""

    group: str = "real"
    critic: str = "D"
    weight: float = 1.0
    formula = "softplus(-D(x, c))"

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        score = step.score_real(self.critic).score
        step.report("score/real", score)
        return self.weight * softplus(-score)
