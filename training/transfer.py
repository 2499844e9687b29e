"""Starting a new run from somebody's weights: resume=WEIGHTS."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dnnlib.errors import CheckpointError
from training.snapshot import find_snapshot, load_strictly, read_snapshot


def start_from_weights(nets: Mapping[str, nn.Module], source: str) -> None:
    """Load every net from the snapshot's net of its name, or from its average if only that was kept.

    Averages of the new run begin as copies of its nets. Raises CheckpointError if a net does not fit.
    """
    file = find_snapshot(Path(source))
    states, config, nimg = read_snapshot(file)
    follows = {average["net"]: name for name, average in (config.get("emas") or {}).items()}
    for name, net in nets.items():
        weights = name if name in states else follows.get(name, name)
        if weights not in states:
            raise CheckpointError(f"{file} has no weights for {name}: it holds {', '.join(sorted(states))}")
        load_strictly(net, states[weights], f"{file}: {weights}")
        print(f"{name} starts from {weights} of {file} ({nimg / 1000:g} thousand images)")
