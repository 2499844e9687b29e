"""Strict loading under a rename table: every tensor has a place, every place gets a tensor of its shape."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError

FILTER = "resample_filter"


def load_strictly(net: nn.Module, state: Mapping[str, Tensor], prefixes: Mapping[str, str] | None = None) -> None:
    """Copy a reference's state into net. prefixes turns the start of their names into the start of ours.

    The references keep a resampling filter in nearly every layer. Ours are made by constructors: theirs are compared,
    where our layer filters at all. Raises CheckpointError that names each tensor that does not fit.
    """
    places = net.state_dict()
    wrong, found = [], set()
    for theirs, tensor in state.items():
        name = renamed(theirs, prefixes or {})
        if name in places:
            found.add(name)
            if places[name].shape != tensor.shape:
                wrong.append(f"{theirs} has the shape {list(tensor.shape)}, its place {list(places[name].shape)}")
        elif name == FILTER or name.endswith("." + FILTER):
            wrong += _compare_filter(net, theirs, name, tensor)
        else:
            wrong.append(f"{theirs} has no place")
    wrong += [f"nothing fills {name}" for name in places if name not in found]
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise CheckpointError(f"The weights do not fit {type(net).__name__}: {'; '.join(wrong[:8])}{more}.")
    net.load_state_dict({renamed(k, prefixes or {}): v for k, v in state.items()}, strict=False)


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """name with its longest prefix in the table replaced."""
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return name
    longest = max(fitting, key=len)
    return prefixes[longest] + name[len(longest) :]


def _compare_filter(net: nn.Module, theirs: str, name: str, tensor: Tensor) -> list[str]:
    modules = dict(net.named_modules())
    owner = modules.get(name.rpartition(".")[0])
    if owner is None:
        return [f"{theirs} has no place"]
    ours = getattr(owner, FILTER, None)
    if ours is None:  # a layer that does not resample keeps a filter all the same
        return []
    if ours.shape != tensor.shape or not torch.allclose(ours, tensor.to(ours), atol=1e-6):
        return [f"{theirs} is another filter than the layer's {list(ours.shape)}"]
    return []
