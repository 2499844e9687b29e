"""What the kernels of a tri-plane field share (triplane.cuh): sizes, their argument, and whether they serve."""

import ctypes
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from torch_utils.ops import gpu, native
from torch_utils.ops.cubins import Text
from torch_utils.ops.triplane import AXES, PlaneAxes

WARPS, TILE, LANES = 4, 4, 32  # as in triplane.cuh: of a block, points at once, threads of a warp
SHARED = 48 * 1024  # bytes of shared memory that a block may take without asking
MOST = 2**31 - 1  # numbers of one item's planes, points of all items
LAYERS = ("w1", "b1", "w2", "b2")
WIDENING = 1.002  # colours reach black and white


class Field(ctypes.Structure):
    """Field of triplane.cuh."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("planes", *LAYERS)]
        + [(f"grad_{name}", ctypes.c_void_p) for name in ("planes", *LAYERS)]
        + [(name, ctypes.c_int) for name in ("batch", "height", "width")]
        + [(name, ctypes.c_float) for name in ("scale", "widening")]
    )


def text(name: str, planes: Tensor, w1: Tensor, w2: Tensor, axes: str) -> Text:
    """The CUDA text for these sizes."""
    digits = "".join(str(axis) for pair in AXES[cast(PlaneAxes, axes)] for axis in pair)
    sizes = {"FEATURES": planes.shape[-1], "HIDDEN": len(w1), "COLOURS": len(w2) - 1}
    return Text(name, (*(f"{key}={size}" for key, size in sizes.items()), f"AXES=0x{digits}"))


def ready(name: str, inputs: Sequence[Tensor], axes: str) -> bool:
    """Whether a kernel serves these inputs: planes, those of rays or points, and the four layers, of shapes that agree.

    It does not where results are to be the same bits every time: threads add gradients in no fixed order.
    """
    planes, *where, w1, _, w2, _ = inputs
    item = planes[0].numel() if len(planes) else 0
    return (
        planes.is_floating_point() and all(t.dtype == torch.float32 for t in inputs)
        and not torch.are_deterministic_algorithms_enabled() and item <= MOST and where[0].numel() <= MOST
        and shared_memory(planes.shape[-1], len(w1), len(w2)) <= SHARED
        and native.kernel_ready(text(name, planes, w1, w2, axes), *inputs)
    )  # fmt: skip


def shared_memory(features: int, hidden: int, outputs: int) -> int:
    """Bytes that a block takes: Layers and Rows of triplane.cuh."""
    layers = hidden * ((features | 1) + 1) + outputs * ((hidden | 1) + 1)
    rows = TILE * (features + 2 * hidden + outputs + 6 * 6)
    return 4 * (layers + WARPS * rows)


def field(planes: Tensor, layers: Sequence[Tensor], box_side: float, grads: dict[str, Tensor] | None = None) -> Field:
    """The argument's part that says what the field is; all contiguous. grads are where gradients are added, by name."""
    batch, height, width = planes.shape[:3]
    given = dict(zip(("planes", *LAYERS), (planes, *layers), strict=True))
    given |= {f"grad_{name}": t for name, t in (grads or {}).items()}
    pointers = {name: t.data_ptr() for name, t in given.items()}
    return Field(**pointers, batch=batch, height=height, width=width, scale=2 / box_side, widening=WIDENING)


def launch(of: Text, kernel: str, job: ctypes.Structure, device: torch.device, units: int) -> None:
    """Start a kernel whose warps take so many units in turn."""
    blocks = gpu.blocks_for(device.index, -(-units // WARPS))
    native.launch(of, kernel, job, device, blocks, WARPS * LANES)
