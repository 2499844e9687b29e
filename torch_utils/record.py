"""Frozen dataclasses of tensors with a common batch axis.

Every value that crosses a floor is a Record: it can be sent to a device, detached, cut by rows and joined
without anyone knowing its fields. Fields that are no tensor (options, strings, None) pass through untouched.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Record):
        return value.map(change)
    if isinstance(value, tuple):
        return tuple(_map(v, change) for v in value)
    return value


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    parts = value if isinstance(value, tuple) else ()
    if isinstance(value, Record):
        parts = tuple(getattr(value, f.name) for f in fields(value))  # pyright: ignore[reportArgumentType]
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


R = TypeVar("R", bound="Record")


class Record:
    """Base of frozen dataclasses whose tensors share their first axis, the batch."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same record with `change` applied to every tensor, inner records and tuples included."""
        names = [f.name for f in fields(self)]  # pyright: ignore[reportArgumentType]
        return replace(self, **{name: _map(getattr(self, name), change) for name in names})  # pyright: ignore

    def __len__(self) -> int:
        first = _first_tensor(self)
        if first is None:
            raise ValueError(f"{type(self).__name__} holds no tensor, so it has no batch size")
        return first.shape[0]

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Self:
        return self.map(lambda t: t[rows])

    def to(self, device: torch.device | str) -> Self:
        return self.map(lambda t: t.to(device, non_blocking=True))

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    def expand(self, n: int) -> Self:
        """Repeat a batch of one n times, without copying; a batch of n stays as it is."""
        return self.map(lambda t: t.expand(n, *t.shape[1:]) if t.shape[0] == 1 else t)


def alternate(one: R, other: R) -> R:
    """Rows one[0], other[0], one[1], other[1] ... of two records as long. Fields that either lacks are None."""

    def join(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return None
        if isinstance(a, Tensor):
            return torch.stack([a, b], dim=1).flatten(0, 1)
        if isinstance(a, Record):
            return alternate(a, b)
        if isinstance(a, tuple):
            return tuple(join(*parts) for parts in zip(a, b, strict=True))
        return a

    names = [f.name for f in fields(one)]  # pyright: ignore[reportArgumentType]
    return replace(one, **{n: join(getattr(one, n), getattr(other, n)) for n in names})  # pyright: ignore


def cat(records: Sequence[R]) -> R:
    """Join records of one type along the batch. Fields that are None in the first stay None."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(values)
        if isinstance(values[0], Record):
            return cat(values)
        if isinstance(values[0], tuple):
            return tuple(join(list(parts)) for parts in zip(*values, strict=True))
        return values[0]

    names = [f.name for f in fields(records[0])]  # pyright: ignore[reportArgumentType]
    return replace(records[0], **{n: join([getattr(r, n) for r in records]) for n in names})  # pyright: ignore
