"""Averages over training: of weights (half-life in images) and of what a network sees (once a batch)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningAverages(nn.Module):
    """A module with buffers that follow the mean of something over each batch.

    collect() adds up a micro-batch; commit() takes the mean over the whole batch, of all ranks, into the buffer. So the
    result does not depend on how the batch was cut. The sums are registered, non-persistent buffers.
    """

    def register_average(self, name: str, start: Tensor, beta: float) -> None:
        """Make buffer `name`, updated as average <- mean + beta (average - mean)."""
        self.register_buffer(name, start)
        self.register_buffer(f"{name}_sum", torch.zeros_like(start), persistent=False)
        self.register_buffer(f"{name}_count", torch.zeros(()), persistent=False)
        self._betas = {**getattr(self, "_betas", {}), name: beta}

    @torch.no_grad()
    def collect(self, name: str, values: Tensor) -> None:
        """Add the rows of values [N, *shape of the buffer]."""
        self.get_buffer(f"{name}_sum").add_(values.sum(dim=0))
        self.get_buffer(f"{name}_count").add_(values.shape[0])

    @torch.no_grad()
    def commit(self, all_reduce: Callable[[Tensor], Tensor]) -> None:
        for name, beta in getattr(self, "_betas", {}).items():
            own, count = self.get_buffer(f"{name}_sum"), self.get_buffer(f"{name}_count")
            total, everywhere = all_reduce(torch.cat([own.flatten(), count[None]])).split([own.numel(), 1])
            if everywhere > 0:
                average = self.get_buffer(name)
                average.copy_((total.view_as(own) / everywhere).lerp(average, beta))
            own.zero_()
            count.zero_()


def commit_averages(net: nn.Module, all_reduce: Callable[[Tensor], Tensor] = lambda t: t) -> None:
    """Take over what every part of `net` has collected during a batch. all_reduce sums over ranks."""
    for module in net.modules():
        if isinstance(module, RunningAverages):
            module.commit(all_reduce)


class WeightAverage:
    """A slow copy of a network.

    Its weights keep half of what they were every kimg thousand images; with rampup r never more than the last r of all
    images seen, so that the first images are forgotten soon. Buffers are copied (StyleGAN2, Karras et al. 2020).
    per_step instead gives the decay of one step, warmed up as min(decay, (1 + n) / (10 + n)) (pi-GAN, GMPI).
    """

    def __init__(self, kimg: float | None = None, rampup: float | None = None, per_step: float | None = None) -> None:
        if (kimg is None) == (per_step is None):
            raise ValueError("a weight average needs either kimg or per_step")
        self.kimg, self.rampup, self.per_step = kimg, rampup, per_step

    def beta(self, nimg: int, batch: int, steps: int) -> float:
        """How much of the old average stays after a batch that began when nimg images and steps batches were seen."""
        if self.per_step is not None:
            return min(self.per_step, (1 + steps) / (10 + steps))
        assert self.kimg is not None
        half_life = self.kimg * 1000
        if self.rampup is not None:
            half_life = min(half_life, nimg * self.rampup)
        return 0.5 ** (batch / max(half_life, 1e-8))

    @torch.no_grad()
    def update(self, average: nn.Module, net: nn.Module, nimg: int, batch: int, steps: int) -> None:
        old, new = [p.data for p in average.parameters()], [p.data for p in net.parameters()]
        torch._foreach_lerp_(old, new, weight=1 - self.beta(nimg, batch, steps))
        for kept, current in zip(average.buffers(), net.buffers(), strict=True):
            kept.copy_(current)
