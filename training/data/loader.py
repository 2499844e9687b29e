"""From a data set to batches on a device, for one rank, from any position of the stream on.

Workers decode; they send plain uint8 arrays through their pipe (not through /dev/shm, which is small in containers).
What comes out does not depend on their number.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dnnlib.errors import ConfigError, TrainingStopped, UserError
from dnnlib.startup import end_with_the_parent, leave_signals_to_the_first
from training.contracts import Batch

from .dataset import DataSet, Sample
from .sampler import items

Arrays = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


class _Fetch:
    """What a worker does: the samples of some items, stacked. An error is returned, so that it arrives as it was."""

    def __init__(self, dataset: DataSet) -> None:
        self._dataset = dataset

    def __getitem__(self, chosen: Sequence[int]) -> tuple[Sequence[int], Arrays | UserError]:
        try:
            samples = [self._dataset.sample(item) for item in chosen]
        except UserError as error:
            return chosen, error
        return chosen, (_stack(samples, "image"), _stack(samples, "label_map"), _stack(samples, "depth"))  # pyright: ignore


def _stack(samples: Sequence[Sample], name: str) -> np.ndarray | None:
    parts = [getattr(sample, name) for sample in samples]
    return None if parts[0] is None else torch.stack(parts).numpy()


def _follow_the_parent(worker: int) -> None:
    """The parent saves first and then ends its workers; where it is killed they would wait for ever."""
    leave_signals_to_the_first()
    end_with_the_parent()


@contextmanager
def _deaths_in_words() -> Iterator[None]:
    """Where torch finds one of its workers dead inside, TrainingStopped says so."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        what = str(error).splitlines()[0].removeprefix("DataLoader ").rstrip(" .")
        raise TrainingStopped(
            f"the data {what}, as happens where memory runs out: give a smaller workers=N, or more memory; the last "
            "saved state is kept, and resume_run= continues from it."
        ) from error


def _watch_workers() -> None:
    """torch looks after its workers whenever a child ends, wherever the program stands then: let it speak in words."""
    looks = signal.getsignal(signal.SIGCHLD)
    if callable(looks) and not hasattr(looks, "__wrapped__"):
        signal.signal(signal.SIGCHLD, _deaths_in_words()(looks))


@atexit.register
def _end_workers() -> None:
    """A program that ends by an error still has them; multiprocessing asks them by a signal that they leave to us."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _as_is(fetched: object) -> object:
    return fetched


def _stream(length: int, batch: int, seed: int, start: int, rank: int, world: int) -> Iterator[list[int]]:
    while True:
        yield items(seed, length, start + rank, batch // world, step=world)
        start += batch


def batches(
    dataset: DataSet, *, batch: int, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1, workers: int = 0,
    device: torch.device | str = "cpu",
) -> Generator[Batch, None, None]:  # fmt: skip
    """This rank's share of global batches of `batch` items, for ever.

    start: images seen so far. Rank r of `world` gets positions start + r, start + r + world, ... of each global batch.
    workers: processes that decode ahead; 0 decodes when asked. Raises the data set's DataError; once a worker has been
    killed, TrainingStopped, and that from wherever the main thread stands.
    """
    if batch % world:
        raise ConfigError(f"batch={batch} cannot be dealt to {world} ranks: make it a multiple of {world}.")
    fetched = DataLoader(
        _Fetch(dataset),  # pyright: ignore[reportArgumentType]
        sampler=_stream(len(dataset), batch, seed, start, rank, world),  # pyright: ignore[reportArgumentType]
        batch_size=None, num_workers=workers, collate_fn=_as_is, prefetch_factor=2 if workers else None,
        worker_init_fn=_follow_the_parent,
        generator=torch.Generator(),  # so that torch's own stream of random numbers is left alone
    )  # fmt: skip
    stream = iter(fetched)
    _watch_workers()
    while True:
        with _deaths_in_words():
            chosen, arrays = next(stream)
        if isinstance(arrays, UserError):
            raise arrays
        yield _batch(dataset, torch.tensor(chosen), arrays, torch.device(device))


def _batch(dataset: DataSet, chosen: Tensor, arrays: Arrays, device: torch.device) -> Batch:
    def send(array: np.ndarray | None) -> Tensor | None:
        if array is None:
            return None
        tensor = torch.from_numpy(array)
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    image, label_map, depth = map(send, arrays)
    assert image is not None
    condition = dataset.conditions(chosen).to(device)
    if label_map is not None:
        condition = replace(condition, label_map=label_map.long())
    return Batch(
        image=image.float() / 127.5 - 1, condition=condition, depth=depth, item=chosen.to(device), pool=dataset
    )
