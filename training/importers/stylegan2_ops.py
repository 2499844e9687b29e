"""Replay of the operator fixtures: many cases in one file, gradients among the outputs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from training.importers.replaying import structured

RESAMPLING = {"upfirdn2d": upfirdn2d, "upsample2d": upsample2d, "downsample2d": downsample2d, "filter2d": filter2d}


def replay_bias_act(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """y; dx, db: gradients of sum(y * probe); d2x: of sum(dx * probe2) for x."""
    made = {}
    for case in structured(metadata, "call_args")["cases"]:
        key = case["key"]
        inputs = {name: tensors[f"in/{key}/{name}"].clone().requires_grad_() for name in ("x", "b")[: 1 + case["bias"]]}
        options = {name: case[name] for name in ("dim", "act", "alpha", "gain", "clamp")}
        y = bias_act(inputs["x"], inputs.get("b"), **options)
        probe, probe2 = tensors[f"in/{key}/probe"], tensors[f"in/{key}/probe2"]
        first = torch.autograd.grad((y * probe).sum(), list(inputs.values()), create_graph=True)
        second = torch.zeros_like(inputs["x"])
        if first[0].requires_grad:
            value = (first[0] * probe2).sum()
            (second,) = torch.autograd.grad(value, inputs["x"], allow_unused=True, materialize_grads=True)
        made |= {f"out/{key}/y": y, f"out/{key}/d2x": second}
        made |= {f"out/{key}/d{name}": slope for name, slope in zip(inputs, first, strict=True)}
    return {name: tensor.detach() for name, tensor in made.items()}


def replay_upfirdn2d(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """filter = setup_filter(f); y = op(x, filter); dx, dw: gradients of sum(y * probe)."""
    made = {}
    for case in structured(metadata, "call_args")["cases"]:
        key = case["key"]
        if case["op"] == "setup_filter":
            options = {name: case[name] for name in ("normalize", "flip_filter", "gain", "separable")}
            made[f"out/{key}/filter"] = setup_filter(case["f"], **options)
            continue
        f = None if case["f"] is None else setup_filter(case["f"])
        inputs = {
            name: tensors[f"in/{key}/{name}"].clone().requires_grad_()
            for name in ("x", "w")
            if _has(tensors, key, name)
        }
        y = _resampled(case, f, **inputs)
        slopes = torch.autograd.grad((y * tensors[f"in/{key}/probe"]).sum(), list(inputs.values()))
        made |= {f"out/{key}/y": y} | ({} if f is None else {f"out/{key}/filter": f})
        made |= {f"out/{key}/d{name}": slope for name, slope in zip(inputs, slopes, strict=True)}
    return {name: tensor.detach() for name, tensor in made.items()}


def _has(tensors: Mapping[str, Tensor], key: str, name: str) -> bool:
    return f"in/{key}/{name}" in tensors


def _resampled(case: Mapping[str, Any], f: Tensor | None, x: Tensor, w: Tensor | None = None) -> Tensor:
    """The case's operator; an argument that is null is one that it does not have."""
    names = ("up", "down", "padding", "flip_filter", "gain", "groups", "flip_weight")
    options = {name: case[name] for name in names if case[name] is not None}
    return RESAMPLING[case["op"]](x, f, **options) if w is None else conv2d_resample(x, w, f, **options)
