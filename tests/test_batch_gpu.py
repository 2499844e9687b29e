"""Cutting the batch changes no update: EG3D's four phases in double precision."""

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from tests.tiny import TINY
from training.build import build_nets
from training.cli.main import prepared
from training.data.loader import batches
from training.phases import PhaseRunner
from training.setup import build_phases

BATCH = 8  # of TINY


@contextmanager
def doubles():
    """New tensors are float64: the nets, and what draws make."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class DoublePool:
    """Conditions of all items, read before doubles() begins."""

    def __init__(self, pool) -> None:
        self.count = len(pool)
        self.all = pool.conditions(torch.arange(self.count)).map(lambda t: t.double())

    def __len__(self) -> int:
        return self.count

    def conditions(self, items):
        return self.all[items]


def updates(batch_gpu: int, phase_name: str) -> dict[str, torch.Tensor]:
    """What one step of plain gradient descent with rate 1 does to every weight, and what it does to w_avg."""
    config, dataset = prepared([*TINY, "subset=200", f"batch_gpu={batch_gpu}"])
    batch = next(batches(dataset, batch=BATCH)).map(lambda t: t.double() if t.is_floating_point() else t)
    batch = replace(batch, pool=DoublePool(dataset))
    with doubles():
        return changes(config, batch, batch_gpu, phase_name)


def changes(config, batch, batch_gpu: int, phase_name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    nets = {name: net.double().train() for name, net in build_nets(config).items()}
    with torch.no_grad():
        for name, parameter in nets["G"].named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)  # so that random noise counts
    before = {name: copy.deepcopy(net.state_dict()) for name, net in nets.items()}
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.SGD(net.parameters(), lr=1.0) for name, net in nets.items()
    }
    runner = PhaseRunner(nets, optimizers, seed=0, batch_gpu=batch_gpu, clips={})
    (phase,) = [phase for phase in build_phases(config, nets) if phase.name == phase_name]
    runner.run(phase, batch, nimg=10_000, report=lambda name, values: None)
    return {
        f"{name}/{key}": value - before[name][key]
        for name, net in nets.items()
        for key, value in net.state_dict().items()
    }


@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_batch_gpu_does_not_change_the_update(phase: str):
    whole, cut = updates(BATCH, phase), updates(4, phase)
    assert any(change.any() for change in whole.values())
    assert phase != "Dmain" or whole["G/mapping_network.w_avg"].any()
    size = torch.cat([change.reshape(-1) for change in whole.values()]).norm()
    for key, change in whole.items():
        rounding = 1e-15 * size  # all that is left where a gradient cancels: the density's bias in its own difference
        assert (cut[key] - change).norm() <= 1e-9 * change.norm() + rounding, key
