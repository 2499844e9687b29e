"""What a reference's network is in our terms; strict loading: each tensor has a place, each place gets a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from dnnlib.limits import check_numbers
from training.build import build_net

FILTER = "resample_filter"


@dataclass(frozen=True)
class Description:
    """A network as a node to build, and how the names of its tensors translate."""

    node: Mapping[str, Any]  # what training.build makes the network of
    prefixes: Mapping[str, str] = field(default_factory=dict)  # starts of their names -> starts of ours
    dataset: Mapping[str, Any] = field(default_factory=dict)  # resolution, num_channels, label_dim
    rig: Mapping[str, Any] | None = None  # node of the cameras it was trained with, where the file tells
    quirks: tuple[str, ...] = ()  # of the reference, in words, that these weights depend on
    ignored: tuple[str, ...] = ()  # tensors that play no part

    def empty(self, where: str = "the network") -> nn.Module:
        """The network without memory for its weights. Raises ConfigError if it cannot be built."""
        check_numbers(self.node, where)
        with torch.device("meta"):
            return build_net(self.node, where)

    def load(self, state: Mapping[str, Tensor], where: str = "the network") -> nn.Module:
        """The network with a reference's state, in eval mode.

        It takes no memory before the shapes are known to fit. Raises CheckpointError as load_strictly() does.
        """
        state = {name: tensor for name, tensor in state.items() if name not in self.ignored}
        refuse(self.empty(where), state, self.prefixes)
        net = build_net(self.node, where)
        load_strictly(net, state, self.prefixes)
        return net.eval()


def load_strictly(net: nn.Module, state: Mapping[str, Tensor], prefixes: Mapping[str, str] | None = None) -> None:
    """Copy a reference's state into net. prefixes turns the start of their names into the start of ours.

    The references keep a resampling filter in nearly every layer. Ours are made by constructors: theirs are compared,
    where our layer filters at all. Raises CheckpointError that names each tensor that does not fit.
    """
    refuse(net, state, prefixes or {})
    net.load_state_dict({renamed(k, prefixes or {}): v for k, v in state.items()}, strict=False)


def refuse(net: nn.Module, state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> None:
    """Raises CheckpointError unless the state fits."""
    wrong = list(misfits(net, state, prefixes).values())
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise CheckpointError(f"The weights do not fit {type(net).__name__}: {'; '.join(wrong[:8])}{more}.")


def misfits(net: nn.Module, state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, str]:
    """What does not fit, by their name or, where nothing fills a place of ours, by ours. Filters of nets without memory
    are compared by shape alone."""
    places, modules = net.state_dict(), dict(net.named_modules())
    wrong: dict[str, str] = {}
    found = set()
    for theirs, tensor in state.items():
        name = renamed(theirs, prefixes)
        if name in places:
            found.add(name)
            if places[name].shape != tensor.shape:
                wrong[theirs] = f"{theirs} has the shape {list(tensor.shape)}, its place {list(places[name].shape)}"
        elif name == FILTER or name.endswith("." + FILTER):
            owner = modules.get(name.rpartition(".")[0])
            if owner is None:
                wrong[theirs] = f"{theirs} has no place"
            elif not _same_filter(getattr(owner, FILTER, None), tensor):
                wrong[theirs] = f"{theirs} is another filter than the layer's"
        else:
            wrong[theirs] = f"{theirs} has no place"
    return wrong | {name: f"nothing fills {name}" for name in places if name not in found}


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """name with its longest prefix in the table replaced."""
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return name
    longest = max(fitting, key=len)
    return prefixes[longest] + name[len(longest) :]


def _same_filter(ours: Tensor | None, theirs: Tensor) -> bool:
    """A layer of theirs that does not resample keeps a filter all the same."""
    if ours is None:
        return True
    return ours.shape == theirs.shape and (ours.is_meta or torch.allclose(ours, theirs.to(ours), atol=1e-6))
