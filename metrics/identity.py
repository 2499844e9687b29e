"""Does a scene stay the same scene when it is seen from elsewhere?

The probe's embedding is a unit vector that is alike for two views of one critter and unlike for different ones. A model
whose scenes are all alike would agree with itself perfectly, so agreement is told together with that of strangers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metrics.pictures import Measured
from metrics.probe import Look


def agreement(first: Float[Tensor, "N E"], second: Float[Tensor, "N E"]) -> dict[str, float]:
    """Cosines between two views of each of N identities, given as unit vectors.

    same: mean over identities; strangers: mean over pairs of different ones; found: share of first views whose most
    alike second view is their own.
    """
    cosines = first @ second.T
    n = cosines.shape[0]
    own = cosines.diagonal()
    found = cosines.argmax(dim=1) == torch.arange(n, device=cosines.device)
    strangers = (cosines.sum() - own.sum()) / max(n * (n - 1), 1)
    return {
        "identity_same": own.mean().item(),
        "identity_strangers": strangers.item(),
        "identity_found": found.double().mean().item(),
    }


@dataclass(frozen=True)
class Identity:
    """Agreement between views to the left and to the right of the rig's mean."""

    probe: Look
    num_seeds: int
    yaws: Sequence[float]  # two offsets from the rig's mean, radians

    def __call__(self, measured: Measured) -> dict[str, float]:
        left, right = [], []
        for one, other in measured.views(range(self.num_seeds), self.yaws):
            left.append(self.probe(one.image).embedding)
            right.append(self.probe(other.image).embedding)
        return agreement(torch.cat(left), torch.cat(right))
