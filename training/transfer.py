"""Starting a new run from somebody's weights: resume=WEIGHTS."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dnnlib.errors import CheckpointError
from training.snapshot import averages_of, find_snapshot, load_strictly, read_snapshot


def start_from_weights(nets: Mapping[str, nn.Module], source: str) -> None:
    """Load every net from the snapshot's net of its name, or from its slowest average if only averages were kept.

    Averages of the new run begin as copies of its nets. Raises CheckpointError if a net does not fit.
    """
    file = find_snapshot(Path(source))
    states, config, nimg = read_snapshot(file)
    for name, net in nets.items():
        weights = next((kept for kept in [name, *averages_of(name, config)] if kept in states), None)
        if weights is None:
            raise CheckpointError(f"{file} has no weights for {name}: it holds {', '.join(sorted(states))}")
        load_strictly(net, states[weights], f"{file}: {weights}")
        print(f"{name} starts from {weights} of {file} ({nimg / 1000:g} thousand images)")
