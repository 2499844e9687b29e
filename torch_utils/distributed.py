"""Rank, world and sums over ranks. Without a process group: one rank."""

import torch.distributed as dist
from torch import Tensor


def _started() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _started() else 0


def world() -> int:
    return dist.get_world_size() if _started() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The tensor summed over all ranks, in place."""
    if _started():
        dist.all_reduce(tensor)
    return tensor
