"""Starting a new run from somebody's weights: resume=WEIGHTS."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from dnnlib.errors import CheckpointError
from dnnlib.hints import parameters
from torch_utils.ema import WeightAverage
from training.build import find_class
from training.snapshot import averages_of, find_snapshot, load_strictly, read_snapshot


def start_from_weights(
    nets: Mapping[str, nn.Module], source: str,
    averages: Mapping[str, tuple[str, WeightAverage, nn.Module]] | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Load every net from the snapshot's net of its name, or from its slowest average if only averages were kept.

    averages, name -> (net it follows, rule, slow copy): each is loaded from the average of its name, or like the net
    that it follows if there is none. run: the configuration of the new run; what its networks do otherwise than those
    of the snapshot is told. Raises CheckpointError if something does not fit.
    """
    file = find_snapshot(source, run)
    states, config, nimg = read_snapshot(file)
    wanted = [(name, name, net) for name, net in nets.items()]
    wanted += [(name, followed, slow) for name, (followed, _, slow) in (averages or {}).items()]
    for name, followed, net in wanted:
        weights = next((kept for kept in [name, followed, *averages_of(followed, config)] if kept in states), None)
        if weights is None:
            raise CheckpointError(f"{file} has no weights for {name}: it holds {', '.join(sorted(states))}")
        try:
            load_strictly(net, states[weights], f"{file}: {weights}")
        except CheckpointError as error:
            if ((run or {}).get("model") or {}).get("as_published") is not False:
                raise
            raise CheckpointError(f"{error}; model.as_published=true makes networks as they were published") from error
        seen = f" ({nimg / 1000:g} thousand images)" if nimg else ""
        print(f"{name} starts from {weights} of {file}{seen}")
    for name, node in ((run or {}).get("nets") or {}).items():
        changed = differences(config["nets"].get(name), node, f"nets.{name}")
        if changed:
            print(f"The weights of {name} were trained with other settings: {', '.join(changed)}")


def differences(theirs: Any, ours: Any, where: str) -> list[str]:
    """Where two nodes of one class say different words or switches, as "path=theirs (here ours)". Defaults count."""
    if not isinstance(theirs, Mapping) or not isinstance(ours, Mapping) or "_target_" not in ours:
        return []
    defaults = {}
    if theirs.get("_target_") == ours["_target_"]:
        takes = parameters(find_class(ours["_target_"], where))
        defaults = {key: p.default for key, p in takes.items() if p.default is not p.empty}
    found = []
    for key in [key for key in {**theirs, **ours} if key in defaults or (key in theirs and key in ours)]:
        there, here = (node.get(key, defaults.get(key)) for node in (theirs, ours))
        if isinstance(there, (str, bool)) and isinstance(here, (str, bool)):
            found += [f"{where}.{key}={there} (here {here})"] if there != here else []
        else:
            found += differences(there, here, f"{where}.{key}")
    return found
