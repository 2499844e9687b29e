"""Ranks: which one this is, sums over all of them, and what they agree on. Without a process group: one rank.

Sums of gradients go over the devices' own links. Small words between processes always go over Gloo, so that a GPU need
not wait for them, and a rank may take its time over pictures and metrics while the others wait for its next word.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # now: imported later, its default arguments keep the group of that moment
from torch import Tensor

from dnnlib.errors import TrainingStopped
from torch_utils import watchdog

PATIENCE = timedelta(days=1)  # with a rank that lives; one that has ended is noticed at once

_links: Any = None  # the group that sums; None: that of the words


class RankLost(TrainingStopped):
    """Another rank has ended, or cannot be reached."""


def started_elsewhere() -> bool:
    """Whether torchrun, or another program that speaks as it does, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def _started() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _started() else 0


def world() -> int:
    return dist.get_world_size() if _started() else 1


@contextmanager
def joined(rank: int, world: int, store: Any = None) -> Iterator[None]:
    """Be one of `world` ranks inside. store: where they meet; None: at MASTER_ADDR and MASTER_PORT. Raises RankLost."""
    global _links
    with _noticing():
        dist.init_process_group("gloo", rank=rank, world_size=world, store=store, timeout=PATIENCE)
    try:
        yield
    finally:
        _links = None
        dist.destroy_process_group()


def link(device: str | None) -> str | None:
    """The name of this rank's own device, of the kind that is named; sums go over its links from now on."""
    global _links
    if world() == 1 or device not in (None, "cuda") or not torch.cuda.is_available():
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank())))
    torch.cuda.set_device(own)
    with _noticing():
        _links = dist.new_group(backend="nccl", timeout=PATIENCE, device_id=own)
    return str(own)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The tensor summed over all ranks, in place. Raises RankLost."""
    if world() > 1:
        with _noticing():
            dist.all_reduce(tensor, group=_links)
    return tensor


def rows_of_ranks(tensor: Tensor) -> Tensor:
    """What each rank has of a tensor, [world, *shape], on the CPU. Raises RankLost."""
    own = tensor.detach().cpu().contiguous()
    if world() == 1:
        return own[None]
    rows = [torch.empty_like(own) for _ in range(world())]
    with _noticing():
        dist.all_gather(rows, own)
    return torch.stack(rows)


def largest(*numbers: int) -> list[int]:
    """Each number's largest value on any rank: what all of them agree on. Raises RankLost."""
    return list(numbers) if world() == 1 else rows_of_ranks(torch.tensor(numbers)).amax(dim=0).tolist()


def word_of_first(make: Callable[[], Any]) -> Any:
    """What make() gives on the first rank, told to all by pickle. Raises RankLost."""
    if world() == 1:
        return make()
    said = [make() if rank() == 0 else None]
    with _noticing():
        dist.broadcast_object_list(said, src=0)
    return said[0]


@contextmanager
def _noticing() -> Iterator[None]:
    """Where a collective fails inside, RankLost says so."""
    try:
        with watchdog.unwatched():
            yield
    except RuntimeError as error:  # PyTorch has no class of its own for it
        raise RankLost(
            "another rank has ended, or cannot be reached. The training state is kept: continue with resume_run"
        ) from error
