"""The training state: all that a killed run needs to go on as if nothing had happened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib import rundir
from dnnlib.errors import CheckpointError, DataError
from torch_utils import checkpoint, distributed
from torch_utils.ema import WeightAverage
from torch_utils.ops import native
from torch_utils.stats import Collector
from training.build import DATA_FACTS
from training.data.dataset import DataSet
from training.phases import PhaseRunner
from training.snapshot import load_strictly
from training.step import Keeping

STATE_FILE = "state.pt"
FORMAT = "parallax-state-4"
CONTENTS = {  # what a state holds, and nothing else
    "format": str, "nets": dict, "averages": dict, "optimizers": dict, "kept": dict, "collector": dict,
    "bad_steps": dict, "counters": dict, "lengths": dict, "elapsed": float, "data": dict, "machine": dict,
}  # fmt: skip
LOOKED_AT = 4  # items of the data by which a run knows them again
TOLERANCE = 4e-3  # of their figures: a grey level of 256, so that decoders may differ in their last bits


@dataclass(kw_only=True)
class RunState:
    """The moving parts of a run. Everything random follows from (seed, images seen), so no generator is kept."""

    nets: dict[str, nn.Module]
    averages: dict[str, tuple[str, WeightAverage, nn.Module]]  # name -> (net it follows, rule, slow copy)
    optimizers: dict[str, torch.optim.Optimizer]
    runner: PhaseRunner
    kept: dict[str, Keeping] = field(default_factory=dict)
    collector: Collector = field(default_factory=Collector)
    data: dict[str, Any] = field(default_factory=dict)  # describe() of what it is trained on
    nimg: int = 0  # images seen
    iteration: int = 0
    tick: int = 0
    tick_nimg: int = 0  # images seen at the start of this tick

    def everything(self) -> dict[str, nn.Module]:
        """The nets and their averages, by name."""
        return {**self.nets, **{name: slow for name, (_, _, slow) in self.averages.items()}}

    def end_iteration(self, batch: int) -> None:
        """Let everything that keeps something take over what the iteration has brought."""
        for name, part in self.kept.items():
            for key, value in part.end_iteration(self.iteration, batch, distributed.sum_over_ranks).items():
                self.collector.report(f"{name}/{key}", torch.tensor(value))

    def counters(self) -> dict[str, int]:
        return {"nimg": self.nimg, "iteration": self.iteration, "tick": self.tick, "tick_nimg": self.tick_nimg}

    def save(self, folder: Path, elapsed: float) -> None:
        """Replace the folder's state by this one, atomically. elapsed: seconds of training so far.

        All ranks call it; the first one writes.
        """
        collected = self.collector.state_dict()
        if distributed.rank():
            return
        checkpoint.save(
            {
                "format": FORMAT,
                "nets": {name: net.state_dict() for name, net in self.nets.items()},
                "averages": {name: slow.state_dict() for name, (_, _, slow) in self.averages.items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "kept": {name: part.state_dict() for name, part in self.kept.items()},
                "collector": collected,
                "bad_steps": self.runner.bad_steps,
                "counters": self.counters(),
                "lengths": rundir.lengths(folder),
                "elapsed": elapsed,
                "data": self.data,
                "machine": self._machine(),
            },
            folder / STATE_FILE,
        )

    def load(self, folder: Path) -> float:
        """Continue from the folder's state; lines written after it are forgotten. Returns the seconds spent so far.

        Raises CheckpointError for a state that is damaged or of another configuration, DataError for other data.
        Another machine, or another batch_gpu, changes the last bits only: that is said, and the run goes on.
        """
        path = folder / STATE_FILE
        state = read_state(path)
        same_names(state["counters"], self.counters(), f"{path}: counters")
        require_same_data(state["data"], self.data)
        own = {"nets": self.nets, "averages": {name: slow for name, (_, _, slow) in self.averages.items()}}
        for kind, modules in own.items():
            same_names(state[kind], modules, f"{path}: {kind}")
            for name, module in modules.items():
                load_strictly(module, state[kind][name], f"{path}: {name}")
        same_names(state["optimizers"], self.optimizers, f"{path}: optimizers")
        for name, optimizer in self.optimizers.items():
            _load_optimizer(optimizer, state["optimizers"][name], f"{path}: optimizer {name}")
        same_names(state["kept"], self.kept, f"{path}: kept")
        for name, part in self.kept.items():
            same_names(state["kept"][name], part.state_dict(), f"{path}: kept {name}")
            part.load_state_dict(state["kept"][name])
        self.collector.load_state_dict(state["collector"], self._device())
        self.runner.bad_steps = state["bad_steps"]
        counters = state["counters"]
        self.nimg, self.iteration = counters["nimg"], counters["iteration"]
        self.tick, self.tick_nimg = counters["tick"], counters["tick_nimg"]
        if distributed.rank() == 0:
            rundir.cut_back_to(folder, state["lengths"])
        before, now = {"operators": "torch", **state["machine"]}, self._machine()  # the first states do not say
        changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
        if changed:
            print(f"Note: {', '.join(changed)} since this run was stopped; it goes on, but not bit by bit as before.")
        return state["elapsed"]

    def _device(self) -> torch.device:
        return next((p.device for net in self.nets.values() for p in net.parameters()), torch.device("cpu"))

    def _machine(self) -> dict[str, Any]:
        """What the last bits of the arithmetic depend on besides the configuration."""
        device = self._device()
        kinds = {"cpu": torch.backends.cpu.get_cpu_capability, "cuda": torch.cuda.get_device_name}
        return {
            "device": f"{device.type} {kinds[device.type]()}" if device.type in kinds else device.type,
            "threads": torch.get_num_threads(),
            "ranks": distributed.world(),
            "batch_gpu": self.runner.batch_gpu,
            "torch": str(torch.__version__),
            "operators": native.version(device.type),
        }


def read_state(path: Path) -> dict[str, Any]:
    """A state with all its parts. Raises CheckpointError for any other file."""
    state = checkpoint.load(path)
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        wrote = f"it says {version}, this program reads {FORMAT}" if isinstance(version, str) else "it does not say so"
        raise CheckpointError(
            f"{path} is not a training state that this version can continue: {wrote}. Continue it with the version "
            "that wrote it, or start a new run from its newest snapshot with resume=."
        )
    same_names(state, CONTENTS, str(path))
    for key, kind in CONTENTS.items():
        if not isinstance(state[key], kind):
            raise CheckpointError(f"{path}: {key} is a {type(state[key]).__name__}, not a {kind.__name__}")
    numbers = {"counters": int, "bad_steps": int, "lengths": int, "collector": Tensor, "nets": dict, "averages": dict,
               "kept": dict}  # fmt: skip
    for key, kind in numbers.items():
        wrong = [name for name, value in state[key].items() if not isinstance(value, kind)]
        if wrong:
            raise CheckpointError(f"{path}: {key}.{wrong[0]} is not of type {kind.__name__}")
    return state


def same_names(found: Mapping[str, Any], wanted: Iterable[str], where: str) -> None:
    """Raises CheckpointError naming what is lacking and what has no place here."""
    lacking = sorted(set(wanted) - found.keys())
    strange = sorted(str(name) for name in found.keys() - set(wanted))
    if lacking or strange:
        told = [f"it lacks {', '.join(lacking)}"] if lacking else []
        told += [f"nothing here is called {', '.join(strange)}"] if strange else []
        raise CheckpointError(f"{where} belongs to another configuration or was altered: {'; '.join(told)}")


def describe(dataset: DataSet) -> dict[str, Any]:
    """What a run must find again when it goes on: the facts of its data, and how a few items look."""
    count = len(dataset)
    rows = sorted({i * (count - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)})
    condition = dataset.conditions(torch.tensor(rows))
    camera = condition.camera
    known = [] if camera is None else [camera.cam2world.flatten(1), camera.intrinsics.flatten(1)]
    known += [] if condition.label is None else [condition.label]
    looks = []
    for item in rows:
        sample = dataset.sample(item)
        pictures = [sample.image.double() / 255, sample.label_map, sample.depth]
        looks.append([f(p.double()) for p in pictures if p is not None for f in (torch.mean, torch.std)])
    figures = torch.cat([torch.tensor(looks, dtype=torch.float64), *(part.double() for part in known)], dim=1)
    facts = {name: getattr(dataset, name) for name in (*DATA_FACTS, "has_cameras")}
    return {"items": count, **facts, "figures": figures}


def require_same_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises DataError if two descriptions of data differ."""
    same_names(before, now, "the state's description of its data")
    changed = [f"{key} {before[key]} -> {now[key]}" for key in now if key != "figures" and before[key] != now[key]]
    if not changed and "figures" in now:
        old, new = before["figures"], now["figures"]
        if old.shape != new.shape or not torch.allclose(old, new, rtol=0, atol=TOLERANCE):
            changed = ["the pictures, cameras or labels of some items"]
    if changed:
        raise DataError(
            f"the data are not those that this run was trained on: {', '.join(changed)}. Put the old data back, or "
            "start a new run from the weights with resume=."
        )


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Any, where: str) -> None:
    try:
        optimizer.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where} belongs to another configuration or was altered: {error}") from error
