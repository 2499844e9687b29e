"""One optimiser step: draw, run the terms, accumulate, check, step.

A phase trains some nets with one optimiser. Terms of one `group` share their passes and one backward, then the graph is
freed. Gradients are means over the whole batch of all ranks, so neither batch_gpu nor the number of ranks changes the
update.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dnnlib.errors import ConfigError, TrainingStopped
from torch_utils import distributed
from torch_utils.ema import commit_averages
from training.contracts import Batch, Critic, Draw, Draws, Inputs
from training.step import Step, Term

Report = Callable[[str, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What is trained, how often, on what, by which losses."""

    name: str
    nets: tuple[str, ...]  # the nets, or parts such as G.encoder, whose weights move
    optimizer: str
    terms: Mapping[str, Term]
    draw: Draw | None = None  # None: the phase generates nothing
    critics: Mapping[str, Critic] = field(default_factory=dict)
    every: int = 1  # run in every so many iterations; the loss is multiplied by it (lazy regularisation)
    update_emas: bool = False  # whether mapping() collects its averages in this phase
    shrink: int = 1  # only the first one in so many images of the batch takes part

    def groups(self) -> list[dict[str, Term]]:
        """The terms by the pass they share, in the order of first mention."""
        grouped: dict[str, dict[str, Term]] = {}
        for name, term in self.terms.items():
            grouped.setdefault(term.group, {})[name] = term
        return list(grouped.values())


def micro_batches(batch: Batch, batch_gpu: int, shrink: int = 1) -> list[tuple[list[int], Batch]]:
    """This rank's batch cut with a stride, with the global index of every item.

    A stride keeps the groups of minibatch-std the same for every batch_gpu and number of ranks. shrink keeps only the
    first one in so many of the global batch.
    """
    count, rank, world = len(batch), distributed.rank(), distributed.world()
    if count % batch_gpu:
        raise ConfigError(f"batch_gpu={batch_gpu} does not divide the {count} images of a rank")
    cuts = count // batch_gpu
    everything = [rank + world * i for i in range(count)]
    kept = len([item for item in everything if item * shrink < count * world])
    parts = [range(k, kept, cuts) for k in range(cuts)]
    return [([everything[i] for i in part], batch[part.start : part.stop : cuts]) for part in parts if part]


def part_of(nets: Mapping[str, nn.Module], name: str) -> nn.Module:
    """A net, or a part of one: G.encoder."""
    net, _, inside = name.partition(".")
    return nets[net].get_submodule(inside)


def weighted_mean(value: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The mean of a term over a micro-batch."""
    if isinstance(value, tuple):
        values, weights = value
        return (values * weights).sum() / weights.sum()
    return value.mean()


def accumulate(phase: Phase, step: Step, share: float = 1.0) -> set[str]:
    """Add the gradients of all terms, times `every` and the micro-batch's share of the batch, group after group.

    Returns the names of terms whose loss is not finite.
    """
    bad = set()
    for group in phase.groups():
        step.leaves = any(getattr(term, "differentiates_images", False) for term in group.values())
        losses = {name: weighted_mean(term(step)) for name, term in group.items()}
        torch.stack(list(losses.values())).sum().mul(phase.every * share).backward()
        for name, loss in losses.items():
            step.report(f"loss/{phase.name}/{name}", loss)
            if not torch.isfinite(loss):
                bad.add(name)
        step.forget()
    return bad


def average_over_ranks(grads: list[Tensor], bad: bool) -> bool:
    """Make the gradients means over all ranks, in place. Returns whether the step was bad on any of them."""
    if distributed.world() == 1:
        return bad
    flat = torch.cat([*(g.reshape(-1) for g in grads), grads[0].new_tensor([float(bad)])])
    distributed.sum_over_ranks(flat).div_(distributed.world())
    *means, share = flat.split([*(g.numel() for g in grads), 1])
    torch._foreach_copy_(grads, [mean.view_as(g) for g, mean in zip(grads, means, strict=True)])
    return bool(share > 0)


class PhaseRunner:
    """Runs phases on nets. Holds no training state but the count of bad steps in a row, by phase."""

    def __init__(
        self, nets: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], *,
        seed: int, batch_gpu: int, clips: Mapping[str, float | None], max_bad_steps: int = 3,
    ) -> None:  # fmt: skip
        self.nets, self.optimizers, self.clips = nets, optimizers, clips
        self.seed, self.batch_gpu, self.max_bad_steps = seed, batch_gpu, max_bad_steps
        self.trainable = [p for net in nets.values() for p in net.parameters() if p.requires_grad]
        self.bad_steps: dict[str, int] = {}

    def run(self, phase: Phase, batch: Batch, nimg: int, report: Report) -> None:
        """One step of one phase on this rank's share of the batch."""
        moving = {id(p) for name in phase.nets for p in part_of(self.nets, name).parameters()}
        for parameter in self.trainable:
            parameter.requires_grad_(id(parameter) in moving)
        optimizer = self.optimizers[phase.optimizer]
        optimizer.zero_grad(set_to_none=True)
        bad_terms: set[str] = set()
        everywhere = len(batch) * distributed.world()
        share = distributed.world() / math.ceil(everywhere / phase.shrink)  # of an image
        for items, part in micro_batches(batch, self.batch_gpu, phase.shrink):
            step = self._step(phase, part, items, everywhere, nimg, report)
            bad_terms |= accumulate(phase, step, share * len(items))
        if phase.update_emas:
            for net in self.nets.values():
                commit_averages(net, distributed.sum_over_ranks)
        self._update(phase, optimizer, nimg, bad_terms)

    def _step(self, phase: Phase, part: Batch, items: list[int], batch: int, nimg: int, report: Report) -> Step:
        draws = Draws(
            seed=self.seed, phase=phase.name, nimg=nimg, items=items, batch=batch, device=part.image.device
        )  # fmt: skip
        inputs = phase.draw(part, draws, nimg, self.nets) if phase.draw else Inputs()
        return Step(
            nets=self.nets, batch=part, inputs=inputs, draws=draws, nimg=nimg, critics=phase.critics,
            update_emas=phase.update_emas, report=report,
        )  # fmt: skip

    def _update(self, phase: Phase, optimizer: torch.optim.Optimizer, nimg: int, bad_terms: set[str]) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return
        bad = average_over_ranks(grads, bool(bad_terms))
        norm = torch.nn.utils.get_total_norm(grads)
        if bad or not torch.isfinite(norm):
            self._bad_step(phase, nimg, bad_terms)
            return
        self.bad_steps[phase.name] = 0
        clip = self.clips.get(phase.optimizer)
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()

    def _bad_step(self, phase: Phase, nimg: int, bad_terms: set[str]) -> None:
        """Skip this update; give up after max_bad_steps in a row."""
        count = self.bad_steps[phase.name] = self.bad_steps.get(phase.name, 0) + 1
        what = f"the loss of {', '.join(sorted(bad_terms))}" if bad_terms else "the gradient"
        if count >= self.max_bad_steps:
            raise TrainingStopped(
                f"{what} of phase {phase.name} is not finite after {nimg} images, for {count} steps in a row "
                f"(max_bad_steps={self.max_bad_steps}). Lower the learning rate, raise gamma, or use fp32=True.",
                everywhere=True,
            )
