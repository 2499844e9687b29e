"""What the replay of every fixture needs: the arguments of the calls, and the gradients that the file lists."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from training.importers.strict import renamed


def structured(metadata: Mapping[str, str], key: str) -> Any:
    """A structured entry of the metadata, such as call_args."""
    if key not in metadata:
        raise CheckpointError(f"The file's metadata have no {key}: it is no parity fixture, or one of an older kind.")
    return json.loads(metadata[key])


def group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix such as "state/", without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def probed(outputs: Mapping[str, Tensor], names: Sequence[str], tensors: Mapping[str, Tensor]) -> Tensor:
    """The scalar whose gradients a fixture holds: the sum over the named outputs of sum(output * in/probe/output)."""
    return torch.stack([(outputs[name] * tensors[f"in/probe/{name}"]).sum() for name in names]).sum()


def listed_gradients(
    value: Tensor | None, net: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "grad/",
    prefixes: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The gradients that the file lists under prefix, by its own names; zero where there is no influence.

    Those of value; without one, those that backward passes have left in the parameters.
    """
    parameters = dict(net.named_parameters())
    names = list(group(tensors, prefix))
    ours = [renamed(name, prefixes or {}) for name in names]
    unknown = [name for name, our in zip(names, ours, strict=True) if our not in parameters]
    if unknown:
        raise CheckpointError(f"The file lists gradients of what is no parameter here: {', '.join(unknown)}.")
    wanted = [parameters[our] for our in ours]
    if value is None:
        found = [p.grad for p in wanted]
    elif wanted and value.requires_grad:
        found = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
    else:
        found = [None] * len(wanted)
    return {
        prefix + name: torch.zeros_like(p) if g is None else g.clone()
        for name, p, g in zip(names, wanted, found, strict=True)
    }


def squared_slopes(
    score: Tensor, images: Mapping[str, Tensor], wanted: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """For each wanted name, per item, the squared gradient of the summed scores over the images it lists."""
    slopes = torch.autograd.grad(score.sum(), list(images.values()), create_graph=True)
    squares = {name: slope.square().flatten(1).sum(dim=1) for name, slope in zip(images, slopes, strict=True)}
    return {name: torch.stack([squares[image] for image in inputs]).sum(dim=0) for name, inputs in wanted.items()}
