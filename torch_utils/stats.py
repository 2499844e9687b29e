"""Named statistics between two ticks: count, mean and standard deviation of whatever was reported on any rank."""

from typing import Any

import torch
from torch import Tensor

from torch_utils import distributed


class Collector:
    """Adds up reported values by name. Its state is plain: a resumed run logs what the killed one would have."""

    def __init__(self) -> None:
        self._moments: dict[str, Tensor] = {}  # count, sum, sum of squares; float64

    def report(self, name: str, values: Tensor) -> None:
        flat = values.detach().double().reshape(-1)
        moments = torch.stack([torch.full_like(flat[0], flat.numel()), flat.sum(), flat.square().sum()])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments

    def collect(self) -> dict[str, dict[str, float]]:
        """Means since the last call, by name in order; then start afresh. All ranks call it with the same names."""
        result = {}
        for name, moments in self.state_dict().items():
            count, total, squares = moments.sum(dim=0).tolist()
            mean = total / count
            result[name] = {"num": int(count), "mean": mean, "std": max(squares / count - mean**2, 0.0) ** 0.5}
        self._moments = {}
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """The moments of every rank, [world, 3], by name in order. All ranks call it with the same names."""
        names = sorted(self._moments)
        if not names:
            return {}
        rows = distributed.rows_of_ranks(torch.stack([self._moments[name] for name in names]))
        return dict(zip(names, rows.unbind(dim=1), strict=True))

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Take up this rank's moments; those of another number of ranks go to the first one together."""
        self._moments = {}
        for name, rows in state.items():
            if len(rows) != distributed.world():
                together = rows.sum(dim=0, keepdim=True)
                rows = torch.cat([together, torch.zeros_like(together).expand(distributed.world() - 1, -1)])
            self._moments[name] = rows[distributed.rank()].clone().to(device)
