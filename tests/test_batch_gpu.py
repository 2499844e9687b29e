"""Neither batch_gpu nor the number of ranks changes an update: EG3D's four phases in double precision."""

import copy
import multiprocessing
import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore

from tests.tiny import TINY
from torch_utils import distributed
from training.build import build_nets
from training.cli.main import prepared
from training.data.loader import batches
from training.phases import PhaseRunner
from training.setup import build_phases

BATCH = 8  # of TINY
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
PAIRS = "spec.mbstd_group=2"  # so that a rank may hold two images


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


def updates(batch_gpu: int, phase_name: str, *words: str) -> dict[str, torch.Tensor]:
    """What one step of plain gradient descent with rate 1 does to every weight, and what it does to w_avg."""
    config, dataset = prepared([*TINY, "subset=200", f"batch_gpu={batch_gpu}", *words])
    share = batches(dataset, batch=BATCH, rank=distributed.rank(), world=distributed.world())
    batch = next(share).map(lambda t: t.double() if t.is_floating_point() else t)
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


def assert_same_update(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """To 1e-9 of the size of every weight's change."""
    assert any(change.any() for change in one.values())
    size = torch.cat([change.reshape(-1) for change in one.values()]).norm()
    for key, change in one.items():
        rounding = 1e-15 * size  # all that is left where a gradient cancels: the density's bias in its own difference
        assert (other[key] - change).norm() <= 1e-9 * change.norm() + rounding, key


@pytest.mark.parametrize("phase", PHASES)
def test_batch_gpu_does_not_change_the_update(phase: str):
    whole, cut = updates(BATCH, phase), updates(4, phase)
    assert phase != "Dmain" or whole["G/mapping_network.w_avg"].any()
    assert_same_update(whole, cut)


@pytest.mark.parametrize(("phase", "pipe"), [("Gmain", "bgc"), ("Dmain", "bgc"), ("Dreg", "color")])
def test_nor_does_it_where_pictures_are_augmented(phase: str, pipe: str):
    """R1 alone amplifies the last bits that a picture's company leaves in its resampling, so it gets colours only."""
    words = ("aug=fixed", "p=0.7", f"augpipe={pipe}")
    assert_same_update(updates(BATCH, phase, *words), updates(4, phase, *words))


def be_a_rank(rank: int, world: int, folder: Path) -> None:
    """Leave the updates that this rank makes in a file."""
    torch.set_num_threads(1)
    with distributed.joined(rank, world, FileStore(str(folder / "meet"), world)):
        found = {phase: updates(2, phase, PAIRS, f"gpus={world}", "device=cpu") for phase in PHASES}
        torch.save(found, folder / f"{rank}.pt")


@pytest.mark.parametrize("world", [2, 4])
def test_the_number_of_ranks_does_not_change_the_update(world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if "lo" in (name for _, name in socket.if_nameindex()):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=be_a_rank, args=(rank, world, tmp_path)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=200)
        assert process.exitcode == 0
    alone = {phase: updates(BATCH, phase, PAIRS) for phase in PHASES}
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for phase in PHASES:
            assert_same_update(alone[phase], found[phase])
