"""Named statistics between two ticks: count, mean and standard deviation of whatever was reported."""

from typing import Any

import torch
from torch import Tensor


class Collector:
    """Adds up reported values by name. Its state is plain: a resumed run logs what the killed one would have."""

    def __init__(self) -> None:
        self._moments: dict[str, Tensor] = {}  # count, sum, sum of squares; float64

    def report(self, name: str, values: Tensor) -> None:
        flat = values.detach().double().reshape(-1)
        moments = torch.stack([torch.full_like(flat[0], flat.numel()), flat.sum(), flat.square().sum()])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments

    def collect(self) -> dict[str, dict[str, float]]:
        """Means since the last call, by name in order; then start afresh."""
        result = {}
        for name in sorted(self._moments):
            count, total, squares = self._moments[name].tolist()
            mean = total / count
            result[name] = {"num": int(count), "mean": mean, "std": max(squares / count - mean**2, 0.0) ** 0.5}
        self._moments = {}
        return result

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._moments)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moments = dict(state)
