"""Streaming moments: count, mean and covariance of feature vectors, in float64.

Moments of parts merge into the moments of the whole (Chan, Golub and LeVeque 1979), whatever the parts' sizes and
order, so that ranks and batches can be added up. The covariance is the population's (divided by n, not n - 1), as in
the reference implementations of FID.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """How many feature vectors were seen, their mean and their scatter."""

    count: int
    mean: Float[Tensor, "F"]  # float64
    scatter: Float[Tensor, "F F"]  # float64; sum of outer products of deviations from the mean

    @classmethod
    def of(cls, features: Float[Tensor, "N F"]) -> Self:
        """The moments of the rows of one batch."""
        rows = features.detach().to("cpu", torch.float64)
        mean = rows.mean(dim=0)
        deviations = rows - mean
        return cls(rows.shape[0], mean, deviations.T @ deviations)

    @classmethod
    def over(cls, batches: Iterable[Float[Tensor, "_ F"]]) -> Self:
        """The moments of all rows of all batches. Raises ValueError if there are none."""
        total = None
        for batch in batches:
            total = cls.of(batch) if total is None else total + cls.of(batch)
        if total is None:
            raise ValueError("moments need at least one batch of features")
        return total

    def __add__(self, other: Self) -> Self:
        """The moments of both sets together."""
        count = self.count + other.count
        step = other.mean - self.mean
        between = torch.outer(step, step) * (self.count * other.count / count)
        return type(self)(count, self.mean + step * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float[Tensor, "F F"]:
        """The population covariance."""
        return self.scatter / self.count
