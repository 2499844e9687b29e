"""dry_run=True: the configuration, the networks' table, the phases as the papers write them, and what they will cost.

Every phase is run once on the meta device: shapes and operations are real, numbers and memory are not, so that a
512 px model takes a few seconds. What operations cost is then read off: arithmetic counted by PyTorch, bytes that
the backward pass keeps, and the speed of a convolution timed on the device.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dnnlib.errors import ConfigError, UserError
from torch_utils.devices import choose_device
from training.build import build_nets
from training.contracts import Batch, Draws, Inputs
from training.data.dataset import DataSet
from training.data.loader import batches
from training.phases import Phase, part_of, weighted_mean
from training.reporting import clock
from training.setup import build_averages, build_phases
from training.step import Step

DEPTH = 2  # how deep the networks' table goes
MISSED = 2.7  # time over that of the counted arithmetic alone (model=eg3d spec=tiny, two threads of a CPU)


class Counting(TorchDispatchMode):
    """Adds up the arithmetic of matrix products and convolutions, by PyTorch's own formulas.

    It also gives the meta device the size of bincount's result, which it lacks: what was asked for at least.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.bincount.default and args[0].is_meta:
            least = args[2] if len(args) > 2 else kwargs.get("minlength", 0)
            return torch.empty(least, dtype=torch.int64, device="meta")
        result = func(*args, **kwargs)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


@dataclass
class Cost:
    """What one micro-batch of a phase takes."""

    flops: float = 0.0
    saved: int = 0  # bytes that the hungriest backward group keeps


@dataclass
class Trace:
    """What running the phases on the meta device has shown."""

    nets: dict[str, nn.Module]
    phases: list[Phase]
    costs: dict[str, Cost] = field(default_factory=dict)
    shapes: dict[nn.Module, list[int]] = field(default_factory=dict)


def show(config: Mapping[str, Any], dataset: DataSet) -> None:
    """Print all of it."""
    print(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120))
    trace = traced(config, dataset)
    for name, net in trace.nets.items():
        print("\n".join(table(name, net, trace.shapes)), end="\n\n")
    print("\n".join(phase_line(phase) for phase in trace.phases), end="\n\n")
    print("\n".join(estimates(config, trace)))


def traced(config: Mapping[str, Any], dataset: DataSet, only_outline: bool = False) -> Trace:
    """Run every phase once, one micro-batch each: on the meta device, or where a phase looks at numbers on the CPU.

    only_outline: raise the error of such a phase instead.
    """
    batch = next(batches(dataset, batch=config["batch_gpu"]))
    try:
        return _traced(config, replace(batch.to("meta"), item=batch.item, pool=None))
    except (NotImplementedError, UserError):
        if only_outline:
            raise
        return _traced(config, batch)


def _traced(config: Mapping[str, Any], batch: Batch) -> Trace:
    with torch.device(batch.image.device):
        nets = build_nets(config)
    trace = Trace(nets, build_phases(config, nets))
    hooks = [module.register_forward_hook(_noting(trace.shapes)) for net in nets.values() for module in net.modules()]
    for phase in trace.phases:
        with _fitting(phase):
            trace.costs[phase.name] = _cost(phase, nets, batch)
    for hook in hooks:
        hook.remove()
    return trace


@contextmanager
def _fitting(phase: Phase) -> Iterator[None]:
    """Shapes that do not fit are a ConfigError; what the meta device cannot do, NotImplementedError."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if "meta" in str(error):
            raise NotImplementedError(f"phase {phase.name}: {error}") from error
        raise ConfigError(
            f"the networks do not fit together in phase {phase.name}: {str(error).splitlines()[0]}. Look at what was "
            "changed under nets, model and phases."
        ) from error


def table(name: str, net: nn.Module, shapes: Mapping[nn.Module, list[int]]) -> list[str]:
    """Module, parameters, buffers, shape of the output, class; totals at the foot."""
    rows = [(name, "parameters", "buffers", "output", "class")]
    for path, module in net.named_modules():
        depth = path.count(".") + 1
        if not path or depth > DEPTH or not (_count(module.parameters()) or _count(module.buffers())):
            continue
        inside = depth < DEPTH and any(_count(child.parameters()) for child in module.children())
        shape = "x".join(map(str, shapes.get(module, []))) or "-"
        weights = "" if inside else str(_count(module.parameters()))
        buffers = "" if inside else str(_count(module.buffers()))
        rows.append(("  " * (depth - 1) + path.rpartition(".")[2], weights, buffers, shape, type(module).__name__))
    rows.append(("total", f"{_count(net.parameters()):,}", f"{_count(net.buffers()):,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:<{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in rows
    ]


def phase_line(phase: Phase) -> str:
    """Gmain: softplus(-D(G(z, c), c)) + ..., how often, and what it trains."""
    losses = " + ".join(getattr(term, "formula", type(term).__name__) for term in phase.terms.values())
    often = "every iteration" if phase.every == 1 else f"every {phase.every} iterations, times {phase.every}"
    return f"{phase.name}: {losses}  (trains {', '.join(phase.nets)} {often})"


def memory(config: Mapping[str, Any], trace: Trace) -> str:
    """What training will hold, as far as it can be told before the first step."""
    trained = sum(4 * _count(net.parameters()) for net in trace.nets.values())
    kept = sum(4 * _count(slow.parameters()) for _, _, slow in build_averages(config, trace.nets).values())
    hungriest = max(trace.phases, key=lambda phase: trace.costs[phase.name].saved)
    activations = trace.costs[hungriest.name].saved
    total = 4 * trained + kept + activations
    return (
        f"Memory: about {_gb(total)} ({_gb(4 * trained + kept)} for weights, gradients, moments and averages; "
        f"{_gb(activations)} for batch_gpu={config['batch_gpu']} in {hungriest.name})."
    )


def memory_line(config: Mapping[str, Any], dataset: DataSet) -> str:
    """memory() for the header of a run: about a second, because no phase is run on the CPU instead.

    Raises ConfigError if the shapes of the networks do not fit together.
    """
    try:
        return memory(config, traced(config, dataset, only_outline=True))
    except NotImplementedError:
        return "Memory: cannot be told before the first step."


def estimates(config: Mapping[str, Any], trace: Trace) -> list[str]:
    """Memory and time."""
    device = choose_device(config["device"])
    parts = config["batch"] // config["batch_gpu"]
    per_image = sum(trace.costs[p.name].flops * parts / p.every for p in trace.phases) / config["batch"]
    per_kimg = per_image * 1000 / _speed(device) * MISSED / config["gpus"]
    return [
        memory(config, trace),
        f"Arithmetic: {per_image / 1e9:.3g} GFLOP an image.",
        f"Time on {device}: very roughly {per_kimg:.3g} s for 1,000 images, {clock(per_kimg * config['kimg'])} for "
        f"kimg={config['kimg']:g}.",
    ]


def _cost(phase: Phase, nets: Mapping[str, nn.Module], batch: Batch) -> Cost:
    for net in nets.values():
        net.requires_grad_(False)
    for name in phase.nets:
        part_of(nets, name).train().requires_grad_(True)
    draws = Draws(phase=phase.name, seed=0, items=range(len(batch)), batch=len(batch), device=batch.image.device)
    inputs = phase.draw(batch, draws, 0, nets) if phase.draw else Inputs()
    step = Step(nets=nets, batch=batch, inputs=inputs, draws=draws, nimg=0, critics=phase.critics)
    weights = {id(p) for net in nets.values() for p in net.parameters()}
    cost = Cost()
    for group in phase.groups():
        saved: dict[int, Tensor] = {}  # holds the tensors, so that no two share an id

        def keep(t: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            if id(t) not in weights:
                saved[t.untyped_storage()._cdata] = t
            return t

        with Counting() as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            step.leaves = any(getattr(term, "differentiates_images", False) for term in group.values())
            losses = [weighted_mean(term(step)) for term in group.values()]
            torch.stack(losses).sum().backward()
        cost.flops += counter.flops
        cost.saved = max(cost.saved, sum(t.untyped_storage().nbytes() for t in saved.values()))
        step.forget()
    return cost


def _noting(shapes: dict[nn.Module, list[int]]) -> Any:
    def note(module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor):
            shapes.setdefault(module, list(first.shape))

    return note


def _count(tensors: Any) -> int:
    return sum(t.numel() for t in tensors)


def _speed(device: torch.device) -> float:
    """Multiplications and additions a second in a convolution of middling size, timed now."""
    x, w = torch.randn(8, 64, 32, 32, device=device), torch.randn(64, 64, 3, 3, device=device)
    steps, flops = 0, 2 * x.numel() * w.numel() / 64
    torch.nn.functional.conv2d(x, w, padding=1)
    started = time.perf_counter()
    while steps < 20 or time.perf_counter() - started < 0.3:
        result = torch.nn.functional.conv2d(x, w, padding=1)
        steps += 1
        if steps % 10 == 0:
            result.sum().item()  # waits for a GPU
    return flops * steps / (time.perf_counter() - started)


def _gb(size: float) -> str:
    return f"{size / 2**30:.2f} GB"
