"""How far a replayed tensor may be from the reference's: the rules that all fixtures share.

outputs 1e-4, operators 1e-5, densities 1e-4 max(1, |x|); losses and squared norms 1e-4 |x|; gradients and outputs that
are derivatives 1e-3 of the tensor's largest entry, at least 1e-8; whole numbers exactly. Where a fixture knows by how
much the reference itself moves under rounding ("conditioning"), five times that if it is more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

OPERATORS = ("stylegan2_core_bias_act", "stylegan2_core_upfirdn2d")
DERIVATIVES = ("dx", "dw", "db", "d2x", "input_grads")
RELATIVE_WORDS = {"loss", "penalty", "reg", "r1", "sqnorm", "norm"}


@dataclass(frozen=True)
class Verdict:
    """One tensor's comparison, at the entry that is worst relative to its bound."""

    name: str
    error: float
    bound: float
    passed: bool
    note: str = ""


def replayed_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """What a replay must produce: out/..., grad/..., grad_r1/..."""
    return [name for name in tensors if name.partition("/")[0] in ("out", "grad", "grad_r1")]


def compare(name: str, ours: Tensor | None, theirs: Tensor, metadata: Mapping[str, str]) -> Verdict:
    """The verdict on the fixture's tensor `name`; ours is None if it was not replayed."""
    if ours is None:
        return Verdict(name, float("inf"), 0.0, False, "not replayed")
    if ours.shape != theirs.shape:
        note = f"the shape is {list(ours.shape)}, it should be {list(theirs.shape)}"
        return Verdict(name, float("inf"), 0.0, False, note)
    if theirs.numel() == 0:
        return Verdict(name, 0.0, 0.0, True)
    bounds = allowed(name, theirs, metadata)
    errors = (ours.detach().double() - theirs.double()).abs()
    errors = torch.where(errors.isnan(), torch.inf, errors)
    worst = int((errors - bounds).argmax())
    error, bound = errors.flatten()[worst].item(), bounds.flatten()[worst].item()
    return Verdict(name, error, bound, error <= bound)


def allowed(name: str, theirs: Tensor, metadata: Mapping[str, str]) -> Tensor:
    """The bound of every entry, in double precision."""
    group, _, output = name.partition("/")
    values = theirs.double().abs()
    if not theirs.is_floating_point():
        return torch.zeros_like(values)
    conditioning = json.loads(metadata.get("conditioning", "{}"))
    if group != "out":
        relative = max(1e-3, 5 * conditioning.get("grad_rel", 0.0))
        return torch.full_like(values, max(1e-8, relative * values.max().item()))
    own = 5 * conditioning.get("outputs", {}).get(output, 0.0)
    return _of_output(output.rpartition("/")[2], values, metadata.get("kind", "")).clamp(min=own)


def _of_output(name: str, values: Tensor, kind: str) -> Tensor:
    words = set(name.split("_"))
    one_per_item = values.ndim == 0 or values.numel() == values.shape[0]
    if values.ndim == 0 or (one_per_item and words & RELATIVE_WORDS):
        return (1e-4 * values).clamp(min=1e-8)
    if name in DERIVATIVES or name.startswith(("r1_", "d_")):
        return torch.full_like(values, max(1e-8, 1e-3 * values.max().item()))
    if kind in OPERATORS:
        return torch.full_like(values, 1e-5)
    return 1e-4 * (values.clamp(min=1) if "sigma" in words else torch.ones_like(values))
