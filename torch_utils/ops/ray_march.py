"""A tri-plane field seen along rays, in one operator: look-up, decoder and compositing (ray_march.cu).

Nothing of a sample is kept: the gradient asks the field again, so that the memory of a ray does not depend on how many
samples it has. There is a kernel for GPUs alone; march_twin is what it computes, and serves for further derivatives.

Bytes and operations of a ray of S samples, with C features, D hidden units and Q outputs, Q - 1 = F of them colours:
- look-up: 12 texels of C numbers a sample, 48 C S bytes, nearly all from caches, as planes are 12 H W C bytes an item,
  and 24 C S operations; the gradient adds to as many texels;
- layers: 2 D (C + Q) S operations; backward, beside those of asking again, twice as many;
- to and from memory: 4 S + 24 + 4 (F + 2) bytes; backward 24 + 4 (F + 2) more.
With EG3D's C = F = 32, D = 64, S = 96: 147 kB of texels and 0.87 million operations, backward twice 147 kB and 2.5
million; of the bytes, 0.5 and 0.7 kB come from or go to memory if caches hold the planes.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import field_kernels
from torch_utils.ops.field_kernels import LAYERS
from torch_utils.ops.triplane import PlaneAxes
from torch_utils.ops.triplane_field import field_twin

TENSORS = 8  # among the arguments; they come first
Sums = tuple[Float[Tensor, "N M F"], Float[Tensor, "N M"], Float[Tensor, "N M"]]


def ray_march(
    planes: Float[Tensor, "B H W 3 C"], origins: Float[Tensor, "N M 3"], directions: Float[Tensor, "N M 3"],
    depths: Float[Tensor, "N M S"], layers: Sequence[Tensor], *, axes: PlaneAxes = "fixed", box_side: float = 1.0,
    activation: str = "softplus", shift: float = -1.0,
) -> Sums:  # fmt: skip
    """sum_i u_i c_i, sum_i u_i z_i and sum_i u_i: colours, depths and weights of a ray's samples from near to far.

    layers are w1, b1, w2, b2 of triplane_field, which gives raw densities and colours c at origin + z direction. An
    interval between samples has the density f(mean of its ends' raw ones + shift), f softplus or relu, and the weight
    w_k = T_k (1 - exp(-s_k d_k)), T_k = exp(-sum_{j < k} s_j d_j); each of its ends gets half of it as u. B is N, or 1.
    Differentiable any number of times in all but depths, the second time by the twin.
    """
    w1, b1, w2, b2 = layers
    inputs = (planes, origins, directions, depths, w1, b1, w2, b2)
    settings = (axes, box_side, activation == "relu", shift)
    if march_ready(*inputs, axes=axes):
        total, moment, opacity = _march(*inputs, *settings)
        return total, moment, opacity
    return march_twin(*inputs, *settings)


def march_ready(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, *layers: Tensor, axes: PlaneAxes
) -> bool:
    """Whether the kernel serves. If shapes do not agree it is left to the twin to say what is wrong."""
    w1, b1, w2, b2 = layers
    agree = (
        len(planes) in (1, len(origins)) and planes.ndim == 5 and origins.shape == directions.shape
        and origins.shape[2] == planes.shape[3] == 3 and depths.shape[:2] == origins.shape[:2]
        and w1.shape == (len(b1), planes.shape[-1]) and w2.shape == (len(b2), len(b1))
    )  # fmt: skip
    return agree and field_kernels.ready("ray_march", (planes, origins, directions, depths, *layers), axes)


def march_twin(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    axes: PlaneAxes, box_side: float, relu: bool, shift: float,
) -> Sums:  # fmt: skip
    """The definition of ray_march, on every device."""
    depths = depths.detach()
    points = origins[:, :, None] + directions[:, :, None] * depths[..., None]
    raw, colours = field_twin(planes, points.flatten(1, 2), w1, b1, w2, b2, axes, box_side)
    raw, colours = raw.view(depths.shape), colours.view(*depths.shape, len(w2) - 1)
    mean = (raw[..., 1:] + raw[..., :-1]) / 2 + shift
    thickness = (F.relu(mean) if relu else F.softplus(mean)) * depths.diff(dim=-1)
    passed = F.pad(thickness[..., :-1], (1, 0)).cumsum(dim=-1)
    weights = torch.exp(-passed) * (1 - torch.exp(-thickness))
    shares = (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2
    return (shares[..., None] * colours).sum(dim=-2), (shares * depths).sum(dim=-1), shares.sum(dim=-1)


class _Job(ctypes.Structure):
    """Job of ray_march.cu."""

    _fields_ = (
        [("field", field_kernels.Field)]
        + [(name, ctypes.c_void_p) for name in ("origins", "directions", "depths", "total", "moment", "opacity")]
        + [(f"grad_{name}", ctypes.c_void_p) for name in ("total", "moment", "opacity", "origins", "directions")]
        + [(name, ctypes.c_longlong) for name in ("rays", "rays_of_item")]
        + [("samples", ctypes.c_int), ("relu", ctypes.c_int), ("shift", ctypes.c_float)]
    )


def _launch(
    kernel: str, inputs: Sequence[Tensor], settings: tuple[Any, ...], grads: dict[str, Tensor] | None = None,
    **more: Tensor,
) -> None:  # fmt: skip
    """Start a kernel of ray_march.cu. Results, which are contiguous, are in `grads` and `more`, too."""
    axes, box_side, relu, shift = settings
    planes, origins, directions, depths, *layers = (t.contiguous() for t in inputs)
    given = {"origins": origins, "directions": directions, "depths": depths} | more
    given = {name: t.contiguous() for name, t in given.items()}
    n, m, samples = depths.shape
    job = _Job(
        field=field_kernels.field(planes, layers, box_side, grads), rays=n * m, rays_of_item=m, samples=samples,
        relu=relu, shift=shift, **{name: tensor.data_ptr() for name, tensor in given.items()},
    )  # fmt: skip
    text = field_kernels.text("ray_march", planes, layers[0], layers[2], axes)
    field_kernels.launch(text, kernel, job, planes.device, n * m)


@torch.library.custom_op("parallax::ray_march", mutates_args=())
def _march(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    axes: str, box_side: float, relu: bool, shift: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found = _shapes(planes, origins, directions, depths, w1, b1, w2, b2, axes, box_side, relu, shift)
    inputs = (planes, origins, directions, depths, w1, b1, w2, b2)
    results = dict(zip(("total", "moment", "opacity"), found, strict=True))
    _launch("march_forward", inputs, (axes, box_side, relu, shift), **results)
    return found


@_march.register_fake
def _shapes(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    axes: str, box_side: float, relu: bool, shift: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rays = depths.shape[:2]
    return planes.new_empty(*rays, len(w2) - 1), planes.new_empty(rays), planes.new_empty(rays)


@torch.library.custom_op("parallax::ray_march_gradient", mutates_args=())
def _gradient(
    grads: Sequence[Tensor], results: Sequence[Tensor], inputs: Sequence[Tensor], axes: str, box_side: float,
    relu: bool, shift: float, wanted: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    """Of planes, and of origins and directions, if wanted (else empty), and of the layers."""
    found = _gradient_shapes(grads, results, inputs, axes, box_side, relu, shift, wanted)
    planes, origins, directions, *layers = found
    names = ("total", "moment", "opacity")
    more = dict(zip(names, results, strict=True)) | dict(zip((f"grad_{name}" for name in names), grads, strict=True))
    if wanted[1]:
        more |= {"grad_origins": origins, "grad_directions": directions}
    adding = dict(zip(LAYERS, layers, strict=True)) | ({"planes": planes} if wanted[0] else {})
    for t in adding.values():
        t.zero_()
    _launch("march_backward", inputs, (axes, box_side, relu, shift), adding, **more)
    return found


@_gradient.register_fake
def _gradient_shapes(
    grads: Sequence[Tensor], results: Sequence[Tensor], inputs: Sequence[Tensor], axes: str, box_side: float,
    relu: bool, shift: float, wanted: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    planes, origins, directions, _, *layers = inputs
    first = zip((planes, origins, directions), (wanted[0], wanted[1], wanted[1]), strict=True)
    return [t.new_empty(t.shape if w else 0) for t, w in first] + [t.new_empty(t.shape) for t in layers]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Sums) -> None:
    ctx.save_for_backward(*inputs[:TENSORS], *output)
    ctx.settings = inputs[TENSORS:]


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    inputs, results = ctx.saved_tensors[:TENSORS], ctx.saved_tensors[TENSORS:]
    needed, others = ctx.needs_input_grad[:TENSORS], [None] * len(ctx.settings)
    if torch.is_grad_enabled():  # a further derivative may be asked for
        inputs = [t.view_as(t) for t in inputs]  # what one of them owes to another is not this operator's
        answers = march_twin(*inputs, *ctx.settings)
        moving = [t for k, t in enumerate(inputs) if needed[k] and k != 3]
        found = iter(torch.autograd.grad(answers, moving, grads, create_graph=True))
        return *(next(found) if needed[k] and k != 3 else None for k in range(TENSORS)), *others
    wanted = [needed[0], needed[1] or needed[2]]
    planes, origins, directions, *layers = _gradient(grads, results, inputs, *ctx.settings, wanted)
    slopes = [planes, origins, directions, None, *layers]
    return *(slope if needed[k] else None for k, slope in enumerate(slopes)), *others


torch.library.register_autograd("parallax::ray_march", _backward, setup_context=_remember)
