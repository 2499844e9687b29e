"""What pickles of networks may ask a machine to call: tensors, numbers and containers made by hand, within bounds.

A tensor is read from the file only when it is asked for. Strides are kept (channels_last weights have others).
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import CheckpointError
from training.importers.pickle_machine import MOST_GLOBAL, Budget, Global, Machine, Recorded

MAGIC = 0x1950A86A20F9469CFC6C  # how a stream of torch.save begins that is no zip
STREAM_PROTOCOL = 1001
DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
}  # fmt: skip
STORAGES = {f"{place}.{kind}Storage": dtype for place in ("torch", "torch.cuda") for kind, dtype in DTYPES.items()}
SCALARS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}  # of numpy
MOST_AXES = 8
ENTRY = 64  # bytes that an entry of a container takes


@dataclass(eq=False)
class Storage:
    """Numbers in the file."""

    dtype: torch.dtype
    count: int
    data: memoryview

    @cached_property
    def numbers(self) -> Tensor:
        if self.count == 0:
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype)  # a copy, aligned


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A view of a storage, known to lie inside."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def memory(self) -> int:
        """Bytes of its entries."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor. Views of one storage share their memory."""
        return self.storage.numbers.as_strided(self.size, self.stride, self.offset)


class Calls:
    """The functions that a file may name, each replaced by one of ours. One object serves one file."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.streams: dict[int, tuple[Any, Storage]] = {}  # of the bytes that were read once
        multiarray = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
        self.table: Mapping[str, Callable[..., Any]] = {
            "torch_utils.persistence._reconstruct_persistent_obj": persistent_object,
            "torch._utils._rebuild_tensor_v2": tensor_view,
            "torch._utils._rebuild_parameter": parameter,
            "torch.storage._load_from_bytes": self.load_from_bytes,
            "torch.Size": torch_size,
            "torch.device": lambda *args: Recorded("torch.device", args),
            "collections.OrderedDict": self.dictionary,
            **dict.fromkeys(["builtins.set", "__builtin__.set"], self.set),
            "_codecs.encode": self.encode,
            "numpy.dtype": numpy_dtype,
            **{f"{module}.scalar": numpy_scalar for module in multiarray},
            **{f"{module}._reconstruct": lambda *args: Recorded("numpy.ndarray", args) for module in multiarray},
        }

    def load_from_bytes(self, data: Any) -> Storage:
        """The storage in a stream of torch.save. The same bytes are the same storage."""
        if id(data) not in self.streams:
            self.streams[id(data)] = data, read_storage(memoryview(data), self.budget)
        return self.streams[id(data)][1]

    def encode(self, text: Any, encoding: Any) -> bytes:
        """How old protocols write bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise CheckpointError("it asks to call _codecs.encode for something other than latin1")
        self.budget.spend(len(text))
        return text.encode("latin1")

    def dictionary(self, pairs: Any = ()) -> dict[Any, Any]:
        self.budget.spend(ENTRY * len(pairs))
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            raise TypeError("an OrderedDict is made of pairs")
        return {key: value for key, value in pairs}  # noqa: C416 (dict() would look for keys())

    def set(self, entries: Any = ()) -> set[Any]:
        self.budget.spend(ENTRY * len(entries))
        if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
            raise TypeError("a set of anything but names")
        return set(entries)


def persistent_object(meta: Any) -> Recorded:
    """An object whose class the file brings as source text, which is kept and not run."""
    if not isinstance(meta, dict):
        raise TypeError("a persistent object without description")
    wanted = {"type": str, "version": int, "module_src": str, "class_name": str, "state": dict}
    wrong = [key for key, kind in wanted.items() if not isinstance(meta.get(key), kind)]
    if wrong or meta["type"] != "class":
        raise TypeError(f"a persistent object without a proper {', '.join(wrong) or 'type'}")
    if not meta["class_name"].isidentifier() or len(meta["class_name"]) > MOST_GLOBAL:
        raise TypeError("a class without a proper name")
    return Recorded(meta["class_name"], state=meta["state"], source=meta["module_src"])


def tensor_view(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> PickledTensor:
    """Raises CheckpointError unless every entry lies inside the storage, and there are no more than it has."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("a tensor without storage or shape")
    if len(size) != len(stride) or len(size) > MOST_AXES:
        raise CheckpointError(f"it has a tensor of {len(size)} axes with {len(stride)} strides")
    if not all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride)):
        raise CheckpointError("it has a tensor of an impossible shape, of impossible strides or at an impossible place")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
    if count > storage.count or last >= storage.count:
        raise CheckpointError(f"it has a tensor of shape {list(size)} that reaches beyond its {storage.count} numbers")
    return PickledTensor(storage, offset, size, stride)


def parameter(tensor: Any, *_rest: Any) -> PickledTensor:
    if not isinstance(tensor, PickledTensor):
        raise TypeError("a parameter that is no tensor")
    return tensor


def torch_size(entries: Any = ()) -> tuple[Any, ...]:
    if not isinstance(entries, (list, tuple)) or len(entries) > MOST_AXES:
        raise TypeError("a shape of too many axes")
    return tuple(entries)


def numpy_dtype(name: Any, *_rest: Any) -> Recorded:
    if not isinstance(name, str) or name not in SCALARS:
        what = repr(name[:20]) if isinstance(name, str) else f"of a {type(name).__name__}"
        raise CheckpointError(f"it has numbers of the numpy type {what}")
    return Recorded("numpy.dtype", (name,))


def numpy_scalar(dtype: Any, data: Any) -> float | int:
    """A number. Raises CheckpointError if it is big-endian."""
    if not isinstance(dtype, Recorded) or dtype.name != "numpy.dtype":
        raise TypeError("a scalar without type")
    order = dtype.state.get("state") or (None, "<")
    if not isinstance(order, tuple) or order[1:2] not in (("<",), ("|",)):
        raise CheckpointError("it has numpy numbers that are not little-endian")
    form = np.dtype("<" + dtype.args[0])
    if len(data) != form.itemsize:
        raise ValueError(f"a {form} of {len(data)} bytes")
    return np.frombuffer(data, form)[0].item()


def read_storage(data: memoryview, budget: Budget) -> Storage:
    """The one storage of a stream that torch.save wrote in its form before zips."""

    def described(pid: Any) -> tuple[torch.dtype, str, int]:
        kind, cls, key, place, count, *view = pid
        dtype = STORAGES.get(cls.name) if isinstance(cls, Global) else None
        proper = kind == "storage" and isinstance(key, str) and isinstance(place, str) and type(count) is int
        if dtype is None or not proper or count < 0 or any(part is not None for part in view):
            name = cls.name if isinstance(cls, Global) else type(cls).__name__
            raise CheckpointError(f"it has numbers of the kind {name}, which is no storage of tensors")
        return dtype, key, count

    machine = Machine(data, budget, {}, described)
    magic, version, system, storage, keys = (machine.load() for _ in range(5))
    if magic != MAGIC or version != STREAM_PROTOCOL or not isinstance(system, dict) or not isinstance(storage, tuple):
        raise CheckpointError("torch.storage._load_from_bytes is asked to read what torch.save did not write")
    if not system.get("little_endian") or sys.byteorder != "little":
        raise CheckpointError("its numbers are big-endian")
    if len(storage) != 3 or not isinstance(storage[0], torch.dtype):
        raise CheckpointError("torch.storage._load_from_bytes is asked to read what is no storage")
    dtype, key, count = storage
    rest = data[machine.position :]
    if keys != [key] or len(rest) < 8 or int.from_bytes(rest[:8], "little", signed=True) != count:
        raise CheckpointError("torch.storage._load_from_bytes is asked to read more or less than one storage")
    if len(rest) - 8 != count * dtype.itemsize:
        raise CheckpointError(f"a storage should hold {count} numbers, and it has {len(rest) - 8} bytes")
    return Storage(dtype, count, rest[8:])
