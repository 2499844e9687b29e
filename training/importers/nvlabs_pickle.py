"""Networks in the files that NVIDIA's StyleGAN2-ada, StyleGAN3, EG3D and their many forks publish.

Such a file is one pickle of {"G", "D", "G_ema": objects, "training_set_kwargs", "augment_pipe"}; on loading, the
references run the source text that it carries. Here an object is walked as a record: its tensors under the names of the
reference's state_dict(), its plain attributes, what it was made with.
"""

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dnnlib.errors import CheckpointError
from training.importers.pickle_machine import Budget, Global, Machine, Recorded
from training.importers.pickle_tensors import Calls, PickledTensor

NETWORKS = ("G", "D", "G_ema")
FIRST_BYTE = b"\x80"  # of every pickle that is read here
MOST_DEPTH = 20  # modules inside modules, lists inside lists
MOST_NAME = 64  # characters of the name of a tensor or module
MOST_VALUES = 200_000  # tensors, attributes and plain values of one network
MOST_TEXT = 1000  # characters of one, bytes of a tensor among them


@dataclass(frozen=True)
class PickledNetwork:
    """A network as its file describes it."""

    class_name: str
    args: tuple[Any, ...]  # what its constructor was called with
    kwargs: dict[str, Any]
    attributes: dict[str, Any]  # plain values and small tensors, by dotted name: "synthesis.b4.conv1.conv_clamp"
    state: dict[str, Tensor]  # equal to the reference's state_dict(), strides included
    source: str  # text of the module that defines the class; never run


def is_pickle(path: Path) -> bool:
    """Whether a file begins as pickles do. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[:1] == FIRST_BYTE and head[8:] != b"{"  # a brace there begins the header of a safetensors file


def read_networks(path: Path, names: Collection[str] = NETWORKS) -> dict[str, PickledNetwork]:
    """Those of the networks that the file holds. Runs nothing of it; time and memory grow with its length alone.

    Raises CheckpointError naming the global, opcode or length that no such file has.
    """
    try:
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    try:
        found = _loaded(data)
        return {name: _network(found[name], len(data)) for name in NETWORKS if name in names and name in found}
    except (CheckpointError, RecursionError, MemoryError) as error:
        why = error if isinstance(error, CheckpointError) else "it asks for more memory or depth than there is"
        raise CheckpointError(f"{path} is no published network that can be read: {why}.") from error


def _loaded(data: memoryview) -> dict[str, Recorded]:
    """The networks of a file, as records."""
    budget = Budget(memory=len(data))
    machine = Machine(data, budget, Calls(budget).table)
    top = machine.load()
    if machine.position != len(data):
        raise CheckpointError(f"{len(data) - machine.position} bytes follow its end")
    if isinstance(top, tuple):
        raise CheckpointError("it is one of StyleGAN for TensorFlow, which legacy.py of StyleGAN3 converts")
    found = {name: top[name] for name in NETWORKS if isinstance(top, dict) and isinstance(top.get(name), Recorded)}
    if not found:
        raise CheckpointError(f"it holds none of the networks {', '.join(NETWORKS)}")
    return found


def _network(top: Recorded, size: int) -> PickledNetwork:
    state: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    left, plain = size, Plain()
    for prefix, module in _modules(top, plain, "", 0):
        for name, tensor in _tensors(module, plain):
            left -= tensor.memory + len(prefix) + len(name)
            if left < 0:
                raise CheckpointError("its tensors would together take more memory than the file")
            state[prefix + name] = tensor.read()
        for name, value in module.state.items():
            plain.count()
            if isinstance(name, str) and not name.startswith("_") and len(name) <= MOST_NAME:
                attributes[prefix + name] = plain(value)
    kwargs = plain(_part(top, "_init_kwargs", dict))
    return PickledNetwork(top.name, plain(_part(top, "_init_args", tuple)), kwargs, attributes, state, top.source)


def _modules(module: Recorded, plain: "Plain", prefix: str, depth: int) -> Iterator[tuple[str, Recorded]]:
    """A module and all in it, in the order of state_dict(), with their prefixes."""
    yield prefix, module
    if depth > MOST_DEPTH:
        raise CheckpointError(f"modules stand inside one another more than {MOST_DEPTH} times")
    for name, inner in _part(module, "_modules", dict).items():
        plain.count()
        if isinstance(inner, Recorded):
            yield from _modules(inner, plain, f"{prefix}{_name(name)}.", depth + 1)


def _tensors(module: Recorded, plain: "Plain") -> Iterator[tuple[str, PickledTensor]]:
    passing = _part(module, "_non_persistent_buffers_set", set)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _part(module, kind, dict).items():
            plain.count()
            if tensor is None or (kind == "_buffers" and name in passing):
                continue
            if not isinstance(tensor, PickledTensor):
                raise CheckpointError(f"{kind[1:]} of {module.name} hold a {type(tensor).__name__}")
            yield _name(name), tensor


def _name(name: Any) -> str:
    if not isinstance(name, str) or len(name) > MOST_NAME or not name.isprintable():
        raise CheckpointError(f"the name of a tensor or module is no printable text of at most {MOST_NAME} letters")
    return name


def _part(module: Recorded, name: str, kind: type) -> Any:
    part = module.state.get(name, kind())
    if not isinstance(part, kind):
        raise CheckpointError(f"{name} of {module.name} is a {type(part).__name__}")
    return part


class Plain:
    """Turns what a machine made into plain values, a limited number of them. What is neither becomes its name."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def count(self) -> None:
        """One more of what a network holds: the same thing may stand in many places of a file."""
        self.left -= 1
        if self.left < 0:
            raise CheckpointError(f"a network holds more than {MOST_VALUES} things")

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.count()
        if depth > MOST_DEPTH:
            raise CheckpointError(f"lists stand inside one another more than {MOST_DEPTH} times")
        if isinstance(value, (list, tuple)):
            return type(value)(self(entry, depth + 1) for entry in value)
        if isinstance(value, dict):
            return {key: self(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, PickledTensor):
            return value.read() if value.memory <= MOST_TEXT else None
        if isinstance(value, (Recorded, Global)):
            return value.name
        if isinstance(value, (int, float, type(None))) or (isinstance(value, str) and len(value) <= MOST_TEXT):
            return value
        return None
