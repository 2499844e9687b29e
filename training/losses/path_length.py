"""The regulariser of how far an image moves when its style vectors do."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from training.step import Step


class PathLength:
    """weight * (|J^T y| - a)^2 (Karras et al. 2020, StyleGAN2, section 3.2): steps of w move all images equally far.

    J is the image's derivative by the style vectors, y ~ N(0, 1) / sqrt(pixels of a side squared), and a follows the
    mean length. Within a micro-batch a has moved towards the lengths of that micro-batch already, and gradients pass
    through that too; what is kept moves once an iteration, towards the mean of all ranks.
    """

    formula = "lambda (|J^T y| - a)^2, J = dG/dw, y ~ N(0, 1/HW)"

    def __init__(self, *, weight: float = 2.0, decay: float = 0.01, group: str = "path_length", net: str = "G") -> None:
        self.weight, self.decay, self.group, self.net = weight, decay, group, net
        self.mean = torch.zeros(())  # a
        self._seen: Tensor | None = None  # this iteration's sum of lengths and their number, on this rank

    def __call__(self, step: Step) -> Float[Tensor, "N"]:
        codes, image = step.codes(self.net), step.fake(self.net).image
        y = step.draws.normal("path_length", image.shape[1:]) / (image.shape[2] * image.shape[3]) ** 0.5
        styles = [getattr(codes, name) for name in codes.rows]
        slopes = torch.autograd.grad((image * y).sum(), styles, create_graph=True)
        lengths = torch.stack([s.square().flatten(2).sum(dim=2).mean(dim=1) for s in slopes]).sum(dim=0).sqrt()
        mean = self.mean.to(lengths).lerp(lengths.mean(), self.decay)
        seen = torch.stack([lengths.detach().sum(), torch.full_like(mean, len(lengths))])
        self._seen = seen if self._seen is None else self._seen + seen
        penalty = (lengths - mean).square()
        step.report("path_length", lengths)
        step.report("path_length/penalty", penalty)
        return self.weight * penalty

    def end_iteration(
        self, iteration: int, batch: int, all_reduce: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:  # fmt: skip
        if self._seen is not None:
            total, count = all_reduce(self._seen).cpu()
            self._seen = None
            if torch.isfinite(total):  # else the step was bad, and is left out
                self.mean = self.mean.lerp(total / count, self.decay)
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"].clone()
