"""One optimiser step, on toy nets in double precision."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dnnlib.errors import ConfigError, TrainingStopped
from training.contracts import Batch, Condition, Inputs
from training.phases import Phase, PhaseRunner
from training.step import Step


class Latent:
    def __call__(self, batch, draws, nimg, nets) -> Inputs:
        return Inputs(z=draws.normal("z", (3,)).double())


@dataclass
class Fit:
    """Distance of a linear map of z from the image's mean: items must keep their own draws."""

    group: str = "fake"
    scale: float = 1.0

    def __call__(self, step: Step) -> Tensor:
        made = step.once("made", lambda: step.nets["G"](step.inputs.z))
        return self.scale * (made.squeeze(1) - step.batch.image.mean(dim=(1, 2, 3))).square()


class Heavy:
    """Only the heavy images count."""

    group = "real"

    def __call__(self, step: Step) -> tuple[Tensor, Tensor]:
        weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
        return step.nets["G"].weight.sum() * torch.tensor([1.0, 5.0], dtype=torch.float64), weights


class Poisoned:
    group = "fake"

    def __call__(self, step: Step) -> Tensor:
        return step.nets["G"].weight.sum() * torch.full((len(step.batch),), float("nan"))


def make_batch(count: int = 8) -> Batch:
    images = torch.randn(count, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return Batch(image=images, condition=Condition())


def make_runner(batch_gpu: int, clip: float | None = None, **changes) -> PhaseRunner:
    torch.manual_seed(0)
    nets = {"G": nn.Linear(3, 1).double(), "D": nn.Linear(3, 1).double()}
    optimizers: dict[str, torch.optim.Optimizer] = {"G": torch.optim.SGD(nets["G"].parameters(), lr=1.0)}
    return PhaseRunner(nets, optimizers, seed=0, batch_gpu=batch_gpu, clips={"G": clip}, **changes)


def phase(terms, **changes) -> Phase:
    return Phase(**{"name": "Gmain", "nets": ("G",), "optimizer": "G", "terms": terms, "draw": Latent(), **changes})


def quiet(name: str, values: Tensor) -> None:
    pass


def update(runner: PhaseRunner, ran: Phase, batch: Batch) -> Tensor:
    before = copy.deepcopy(runner.nets["G"].state_dict())
    runner.run(ran, batch, nimg=0, report=quiet)
    return torch.cat([(value - before[key]).reshape(-1) for key, value in runner.nets["G"].state_dict().items()])


def test_batch_gpu_does_not_change_the_update():
    whole = update(make_runner(8), phase({"fit": Fit()}), make_batch())
    for batch_gpu in (1, 2, 4):
        cut = update(make_runner(batch_gpu), phase({"fit": Fit()}), make_batch())
        assert (cut - whole).norm() <= 1e-9 * whole.norm()


def test_separate_groups_give_the_gradient_of_the_sum():
    together = update(make_runner(8), phase({"a": Fit(), "b": Fit(scale=2.0)}), make_batch())
    apart = update(make_runner(8), phase({"a": Fit(), "b": Fit(scale=2.0, group="again")}), make_batch())
    torch.testing.assert_close(apart, together, rtol=1e-12, atol=1e-12)


def test_a_lazy_phase_weighs_its_interval():
    once = update(make_runner(8), phase({"fit": Fit()}), make_batch())
    lazy = update(make_runner(8), phase({"fit": Fit()}, every=4), make_batch())
    torch.testing.assert_close(lazy, 4 * once, rtol=1e-12, atol=1e-12)


def test_weights_of_a_term_make_a_weighted_mean():
    moved = update(make_runner(2), phase({"heavy": Heavy()}), make_batch(2))
    torch.testing.assert_close(moved[:3], torch.full((3,), -(3 * 1 + 1 * 5) / 4, dtype=torch.float64))


def test_clipping_bounds_the_whole_gradient():
    moved = update(make_runner(8, clip=0.01), phase({"fit": Fit(scale=100.0)}), make_batch())
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-4)


def test_only_the_phase_s_nets_get_gradients():
    runner = make_runner(8)
    runner.run(phase({"fit": Fit()}), make_batch(), nimg=0, report=quiet)
    assert all(p.grad is None for p in runner.nets["D"].parameters())
    assert not any(p.requires_grad for p in runner.nets["D"].parameters())


def test_non_finite_losses_stop_the_run_and_are_named():
    runner = make_runner(8, max_bad_steps=2)
    before = copy.deepcopy(runner.nets["G"].state_dict())
    runner.run(phase({"poison": Poisoned()}), make_batch(), nimg=16, report=quiet)
    assert all(torch.equal(before[key], value) for key, value in runner.nets["G"].state_dict().items())
    with pytest.raises(TrainingStopped, match=r"loss of poison of phase Gmain .* 24 images"):
        runner.run(phase({"poison": Poisoned()}), make_batch(), nimg=24, report=quiet)


def test_a_good_step_forgives_the_bad_ones():
    runner = make_runner(8, max_bad_steps=2)
    for term in (Poisoned(), Fit(), Poisoned()):
        runner.run(phase({"term": term}), make_batch(), nimg=0, report=quiet)
    assert runner.bad_steps == {"Gmain": 1}


def test_a_good_phase_does_not_forgive_another_s_bad_steps():
    runner = make_runner(8, max_bad_steps=2)
    runner.run(phase({"poison": Poisoned()}, name="Greg"), make_batch(), nimg=0, report=quiet)
    runner.run(phase({"fit": Fit()}), make_batch(), nimg=0, report=quiet)
    with pytest.raises(TrainingStopped, match="phase Greg"):
        runner.run(phase({"poison": Poisoned()}, name="Greg"), make_batch(), nimg=8, report=quiet)


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_gpu=3 does not divide"):
        make_runner(3).run(phase({"fit": Fit()}), make_batch(), nimg=0, report=quiet)
