"""A tri-plane field in one operator: look-up, two layers, a raw density and colours (the decoder of EG3D).

In training most of a small model's rendering goes here. As one pass it keeps nothing for the gradient but its result,
and on a CPU takes a little less time than its parts (docs/benchmarks.md): triplane_field.c, on a GPU triplane_field.cu.
Without them field_twin is what it computes.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import field_kernels, native
from torch_utils.ops.conv2d_resample import pointwise_conv2d
from torch_utils.ops.field_kernels import LAYERS, WIDENING
from torch_utils.ops.triplane import AXES, PlaneAxes, sample_planes

TILE = 96  # points that it takes at once: fewer are not worth a thread
COPIES = 2**26  # floats that the threads' own gradients of shared planes may take
Answer = tuple[Float[Tensor, "N P"], Float[Tensor, "N P F"]]


def triplane_field(
    planes: Float[Tensor, "B H W 3 C"], points: Float[Tensor, "N P 3"],
    w1: Float[Tensor, "D C"], b1: Float[Tensor, "D"], w2: Float[Tensor, "Q D"], b2: Float[Tensor, "Q"],
    axes: PlaneAxes = "fixed", box_side: float = 1.0,
) -> Answer:  # fmt: skip
    """Raw densities and Q - 1 colours: raw, c = w2 softplus(w1 x + b1) + b2, colours 1.002 (2 sigmoid(c) - 1).

    x = mean_k plane_k(u_k, v_k), as sample_planes has it; planes of one item may serve points of many. Differentiable
    any number of times in everything, the second time by the twin.
    """
    inputs = (planes, points, w1, b1, w2, b2)
    if _agree(*inputs) and (native.ready(*inputs) or field_kernels.ready("triplane_field", inputs, axes)):
        raw, colours = _field(*inputs, axes, box_side)
        return raw, colours
    return field_twin(*inputs, axes, box_side)


def _agree(*inputs: Tensor) -> bool:
    """Whether the shapes do. If not it is left to the twin to say what is wrong."""
    planes, points, w1, b1, w2, b2 = inputs
    return (
        len(planes) in (1, len(points)) and points.shape[2] == planes.shape[3] == 3
        and w1.shape == (len(b1), planes.shape[-1]) and w2.shape == (len(b2), len(b1))
    )  # fmt: skip


def field_twin(
    planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, axes: PlaneAxes, box_side: float
) -> Answer:
    """The definition of triplane_field, on every device."""
    x = sample_planes(planes, points, axes, box_side)
    hidden = F.softplus(_pointwise(x, w1, b1))
    raw, colours = _pointwise(hidden, w2, b2).split([1, w2.shape[0] - 1], dim=-1)
    return raw.squeeze(-1), torch.sigmoid(colours) * (2 * WIDENING) - WIDENING


def _pointwise(x: Float[Tensor, "N P I"], weight: Float[Tensor, "O I"], bias: Tensor) -> Float[Tensor, "N P O"]:
    """The layer at every point: on a CPU as a 1x1 convolution, which is faster there."""
    if x.is_cuda or x.dtype != weight.dtype or not x.numel():
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
    image = x.unsqueeze(2).permute(0, 3, 1, 2)  # [N, I, P, 1], channels last in memory
    return pointwise_conv2d(image, weight[:, :, None, None], bias).permute(0, 2, 3, 1).squeeze(2)


class _Job(ctypes.Structure):
    """Job of triplane_field.c."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("items", "points", "batch", "height", "width", "features", "hidden")]
        + [("colours", ctypes.c_int64), ("axes", ctypes.c_int64 * 6), ("whole_items", ctypes.c_int64)]
        + [("scale", ctypes.c_float), ("widening", ctypes.c_float)]
        + [(name, ctypes.c_void_p) for name in ("planes", "where", "w1", "b1", "w2", "b2", "raw", "colour")]
        + [(name, ctypes.c_void_p) for name in ("grad_raw", "grad_colour", "grad_planes", "grad_where")]
        + [(name, ctypes.c_void_p) for name in ("grad_w1", "grad_b1", "grad_w2", "grad_b2")]
    )


def _run(function: str, inputs: Sequence[Tensor], axes: str, box_side: float, workers: int, **more: Tensor) -> None:
    """Call a function of the library. Results, which are contiguous, are in `more`, too."""
    planes, points, w1, _, w2, _ = inputs = [t.contiguous() for t in inputs]
    more = {name: t.contiguous() for name, t in more.items()}
    batch, height, width, _, features = planes.shape
    tensors = dict(zip(("planes", "where", "w1", "b1", "w2", "b2"), inputs, strict=True)) | more
    job = _Job(
        items=points.shape[0], points=points.shape[1], batch=batch, height=height, width=width, features=features,
        hidden=w1.shape[0], colours=w2.shape[0] - 1, axes=sum(AXES[cast(PlaneAxes, axes)], ()),
        whole_items="grad_planes" in more and batch > 1, scale=2 / box_side, widening=WIDENING,
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
    )  # fmt: skip
    native.call(function, job, workers)


class _KernelJob(ctypes.Structure):
    """Job of triplane_field.cu."""

    _fields_ = (
        [("field", field_kernels.Field)]
        + [(name, ctypes.c_void_p) for name in ("points", "raw", "colour", "grad_raw", "grad_colour", "grad_points")]
        + [(name, ctypes.c_longlong) for name in ("items", "count")]
    )


def _launch(
    kernel: str, inputs: Sequence[Tensor], axes: str, box_side: float, grads: dict[str, Tensor] | None = None,
    **more: Tensor,
) -> None:  # fmt: skip
    """Start a kernel of triplane_field.cu. Results, which are contiguous, are in `grads` and `more`, too."""
    planes, points, *layers = (t.contiguous() for t in inputs)
    more = {name: t.contiguous() for name, t in more.items()}
    items, count = points.shape[:2]
    job = _KernelJob(
        field=field_kernels.field(planes, layers, box_side, grads), points=points.data_ptr(), items=items, count=count,
        **{name: tensor.data_ptr() for name, tensor in more.items()},
    )  # fmt: skip
    text = field_kernels.text("triplane_field", planes, layers[0], layers[2], axes)
    field_kernels.launch(text, kernel, job, planes.device, items * -(-count // field_kernels.TILE))


@torch.library.custom_op("parallax::triplane_field", mutates_args=())
def _field(
    planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, axes: str, box_side: float
) -> tuple[Tensor, Tensor]:
    raw, colour = _shapes(planes, points, w1, b1, w2, b2, axes, box_side)
    if field_kernels.ready("triplane_field", (planes, points, w1, b1, w2, b2), axes):
        _launch("field_forward", (planes, points, w1, b1, w2, b2), axes, box_side, raw=raw, colour=colour)
        return raw, colour
    workers = native.workers_for(raw.numel() // TILE)
    _run("field_forward", (planes, points, w1, b1, w2, b2), axes, box_side, workers, raw=raw, colour=colour)
    return raw, colour


@_field.register_fake
def _shapes(
    planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, axes: str, box_side: float
) -> tuple[Tensor, Tensor]:
    n, count = points.shape[:2]
    return planes.new_empty(n, count), planes.new_empty(n, count, w2.shape[0] - 1)


@torch.library.custom_op("parallax::triplane_field_gradient", mutates_args=())
def _gradient(
    grad_raw: Tensor, grad_colour: Tensor, colour: Tensor, planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor,
    w2: Tensor, b2: Tensor, axes: str, box_side: float, wanted: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    """Of planes and points if wanted (else empty), and of the layers.

    Threads add to gradients of their own, and the sum over them has always one order; only planes of many items need no
    copies, since no item has two threads. On a GPU threads add in any order.
    """
    inputs = (planes, points, w1, b1, w2, b2)
    if field_kernels.ready("triplane_field", inputs, axes):
        return _gradient_by_kernel(grad_raw, grad_colour, inputs, axes, box_side, wanted)
    shared = planes.shape[0] == 1
    workers = native.workers_for(min(grad_raw.numel() // TILE, COPIES // planes.numel()) if shared else len(points))
    layers = {"grad_w1": w1, "grad_b1": b1, "grad_w2": w2, "grad_b2": b2}
    found = {name: t.new_empty(workers, *t.shape) for name, t in layers.items()}
    if wanted[0]:
        found["grad_planes"] = planes.new_zeros(workers if shared else len(planes), *planes.shape[1:])
    if wanted[1]:
        found["grad_where"] = points.new_empty(points.shape)
    _run(
        "field_backward", inputs, axes, box_side, workers, colour=colour, grad_raw=grad_raw, grad_colour=grad_colour,
        **found,
    )  # fmt: skip
    for name in layers:
        found[name] = found[name].sum(dim=0)
    if wanted[0] and shared:
        found["grad_planes"] = found["grad_planes"].sum(dim=0, keepdim=True)
    return [found.get(f"grad_{name}", planes.new_empty(0)) for name in ("planes", "where", "w1", "b1", "w2", "b2")]


def _gradient_by_kernel(
    grad_raw: Tensor, grad_colour: Tensor, inputs: Sequence[Tensor], axes: str, box_side: float, wanted: Sequence[bool]
) -> list[Tensor]:
    planes, points, *layers = inputs
    found = {name: t.new_zeros(t.shape) for name, t in zip(LAYERS, layers, strict=True)}
    more = {"grad_raw": grad_raw, "grad_colour": grad_colour}
    if wanted[0]:
        found["planes"] = planes.new_zeros(planes.shape)
    if wanted[1]:
        more["grad_points"] = points.new_empty(points.shape)
    _launch("field_backward", inputs, axes, box_side, found, **more)
    first = [found.get("planes"), more.get("grad_points")]
    return [planes.new_empty(0) if t is None else t for t in first] + [found[name] for name in LAYERS]


@_gradient.register_fake
def _gradient_shapes(
    grad_raw: Tensor, grad_colour: Tensor, colour: Tensor, planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor,
    w2: Tensor, b2: Tensor, axes: str, box_side: float, wanted: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    first = [torch.empty_like(t) if w else t.new_empty(0) for t, w in zip((planes, points), wanted, strict=True)]
    return first + [torch.empty_like(t) for t in (w1, b1, w2, b2)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], output[1])
    ctx.axes, ctx.box_side = inputs[6:]


def _backward(ctx: Any, grad_raw: Tensor, grad_colour: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, colour = ctx.saved_tensors
    if torch.is_grad_enabled():  # a further derivative may be asked for
        inputs = [t.view_as(t) for t in inputs]  # what one of them owes to another is not this operator's
        answers = field_twin(*inputs, ctx.axes, ctx.box_side)
        moving = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
        found = iter(torch.autograd.grad(answers, moving, (grad_raw, grad_colour), create_graph=True))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:6]), None, None
    wanted = list(ctx.needs_input_grad[:2])
    grads = _gradient(grad_raw, grad_colour, colour, *inputs, ctx.axes, ctx.box_side, wanted)
    return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), None, None


torch.library.register_autograd("parallax::triplane_field", _backward, setup_context=_remember)
