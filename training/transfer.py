"""Starting a new run from somebody's weights: resume=WEIGHTS."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dnnlib.errors import CheckpointError
from torch_utils.ema import WeightAverage
from training.snapshot import averages_of, find_snapshot, load_strictly, read_snapshot


def start_from_weights(
    nets: Mapping[str, nn.Module], source: str,
    averages: Mapping[str, tuple[str, WeightAverage, nn.Module]] | None = None,
) -> None:  # fmt: skip
    """Load every net from the snapshot's net of its name, or from its slowest average if only averages were kept.

    averages, name -> (net it follows, rule, slow copy): each is loaded from the average of its name, or like the net
    that it follows if there is none. Raises CheckpointError if something does not fit.
    """
    file = find_snapshot(Path(source))
    states, config, nimg = read_snapshot(file)
    wanted = [(name, name, net) for name, net in nets.items()]
    wanted += [(name, followed, slow) for name, (followed, _, slow) in (averages or {}).items()]
    for name, followed, net in wanted:
        weights = next((kept for kept in [name, followed, *averages_of(followed, config)] if kept in states), None)
        if weights is None:
            raise CheckpointError(f"{file} has no weights for {name}: it holds {', '.join(sorted(states))}")
        load_strictly(net, states[weights], f"{file}: {weights}")
        print(f"{name} starts from {weights} of {file} ({nimg / 1000:g} thousand images)")
