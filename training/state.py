"""The training state: all that a killed run needs to go on as if nothing had happened."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dnnlib.errors import CheckpointError
from torch_utils import checkpoint, distributed
from torch_utils.ema import WeightAverage
from torch_utils.stats import Collector
from training.phases import PhaseRunner
from training.snapshot import load_strictly

STATE_FILE = "state.pt"
FORMAT = "parallax-state-1"


@dataclass(kw_only=True)
class RunState:
    """The moving parts of a run. Everything random follows from (seed, images seen), so no generator is kept."""

    nets: dict[str, nn.Module]
    averages: dict[str, tuple[str, WeightAverage, nn.Module]]  # name -> (net it follows, rule, slow copy)
    optimizers: dict[str, torch.optim.Optimizer]
    runner: PhaseRunner
    collector: Collector = field(default_factory=Collector)
    nimg: int = 0  # images seen
    iteration: int = 0
    tick: int = 0
    tick_nimg: int = 0  # images seen at the start of this tick

    def counters(self) -> dict[str, int]:
        return {"nimg": self.nimg, "iteration": self.iteration, "tick": self.tick, "tick_nimg": self.tick_nimg}

    def save(self, folder: Path, offset: int, elapsed: float) -> None:
        """Replace the folder's state by this one, atomically. offset: bytes of stats.jsonl that belong to it."""
        checkpoint.save(
            {
                "format": FORMAT,
                "nets": {name: net.state_dict() for name, net in self.nets.items()},
                "averages": {name: slow.state_dict() for name, (_, _, slow) in self.averages.items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "collector": self.collector.state_dict(),
                "bad_steps": self.runner.bad_steps,
                "counters": self.counters(),
                "stats_offset": offset,
                "elapsed": elapsed,
                "machine": machine(),
            },
            folder / STATE_FILE,
        )

    def load(self, folder: Path) -> tuple[int, float]:
        """Continue from the folder's state. Returns the offset and the seconds spent so far."""
        path = folder / STATE_FILE
        state = checkpoint.load(path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a training state of ours")
        for name, net in self.nets.items():
            load_strictly(net, part(state, "nets", name, path), f"{path}: {name}")
        for name, (_, _, slow) in self.averages.items():
            load_strictly(slow, part(state, "averages", name, path), f"{path}: {name}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(part(state, "optimizers", name, path))
        self.collector.load_state_dict(state["collector"])
        self.runner.bad_steps = state["bad_steps"]
        for name, value in state["counters"].items():
            setattr(self, name, value)
        changed = [f"{key} {old} -> {machine()[key]}" for key, old in state["machine"].items() if machine()[key] != old]
        if changed:
            print(f"Note: {', '.join(changed)} since this run was stopped; it goes on, but not bit by bit as before.")
        return state["stats_offset"], state["elapsed"]


def part(state: dict[str, Any], kind: str, name: str, path: Path) -> Any:
    """One entry of a state. Raises CheckpointError if the run had none of this name."""
    if name not in state[kind]:
        raise CheckpointError(f"{path} has no {kind} called {name}: it belongs to another configuration")
    return state[kind][name]


def machine() -> dict[str, Any]:
    """What the last bits of the arithmetic depend on besides the configuration."""
    return {"threads": torch.get_num_threads(), "ranks": distributed.world(), "torch": str(torch.__version__)}
