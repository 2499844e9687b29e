"""The Fréchet distance between two sets of pictures, seen through a network's features.

d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)    (Dowson and Landau 1982; as FID: Heusel et al. 2017)

for the Gaussians with the features' means and population covariances. With Inception's pool features it is called FID;
with other features it must carry another name. All in float64, by eigenvalues of symmetric matrices, which stay real
and need no general matrix square root.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from metrics.pictures import Measured
from metrics.stats import Moments

Features = Callable[[Float[Tensor, "N 3 H W"]], Float[Tensor, "N F"]]


def _root(matrix: Float[Tensor, "F F"]) -> Float[Tensor, "F F"]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of the two Gaussians; what papers print as FID. Source: equation above."""
    root = _root(a.covariance)
    shared = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean - b.mean).square().sum()
    return (apart + a.covariance.trace() + b.covariance.trace() - 2 * shared).item()


@dataclass(frozen=True)
class Frechet:
    """Distance between reals and fakes at cameras and labels like those of training.

    name: what the value is called. features: [N, 3, H, W] in [-1, 1] -> [N, F].
    """

    name: str
    features: Features
    num_images: int  # of each kind

    def __call__(self, measured: Measured) -> dict[str, float]:
        reals = Moments.over(self.features(pictures.image) for pictures in measured.reals(self.num_images))
        fakes = Moments.over(self.features(pictures.image) for pictures in measured.fakes(self.num_images))
        if min(reals.count, fakes.count) < 2:
            raise ConfigError(f"metric={self.name} compares distributions: it needs at least 2 images of each kind.")
        return {self.name: frechet_distance(reals, fakes)}
