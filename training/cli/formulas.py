"""The formulas that configs/ may use, as ${name:argument,...}: how sizes and strengths follow from one another.

Plain functions of numbers (and cpus(), which asks the machine), so that every preset can be checked against its paper.
"""

import os
from typing import Any


def first(*values: Any) -> Any:
    """The first value that is not null."""
    return next((value for value in values if value is not None), None)


def when(condition: Any, then: Any, otherwise: Any) -> Any:
    return then if condition else otherwise


def equal(a: Any, b: Any) -> bool:
    return a == b


def plus(a: float, b: float) -> float:
    return a + b


def times(a: float, b: float) -> float:
    return a * b


def smaller(a: float, b: float) -> float:
    return min(a, b)


def share(count: int, parts: int) -> int:
    """What each of several parts gets of a count, at least 1."""
    return max(count // parts, 1)


def halved(value: int) -> int:
    return value // 2


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def style_rows(resolution: int) -> int:
    """Style vectors that StyleGAN2's synthesis network of this resolution takes."""
    return 2 * resolution.bit_length() - 4


def super_input(resolution: int) -> int:
    """Side of the features that EG3D's super-resolution starts from: 64 for 128 px, 128 for 256 and 512."""
    return max(min(resolution // 2, 128), resolution // 4)


def super_widths(resolution: int) -> list[int]:
    """Channels of EG3D's two super-resolution blocks."""
    return [256, 128] if resolution >= 512 else [128, 64]


def half_precision(precision: str, fp32: bool) -> str | None:
    """The type of blocks in half precision, as layers call it; null if none is asked for."""
    return None if fp32 else {"fp16": "float16", "bf16": "bfloat16"}.get(precision)


def micro_batch(batch: int, gpus: int, most: int) -> int:
    """Images a GPU holds at a time: as many as divide its share of the batch, at most `most`."""
    own = share(batch, gpus)
    return next(size for size in range(max(min(most, own), 1), 0, -1) if own % size == 0)


def auto_batch(resolution: int, gpus: int) -> int:
    """StyleGAN2-ada's --cfg=auto: fill each GPU with up to 32 images, 64 in all."""
    return max(min(gpus * min(4096 // resolution, 32), 64), gpus)


def auto_gamma(resolution: int, batch: int) -> float:
    """StyleGAN2-ada's rule for the strength of R1."""
    return 0.0002 * resolution**2 / batch


def auto_channel_base(resolution: int) -> int:
    return 32768 if resolution >= 512 else 16384


def auto_learning_rate(resolution: int) -> float:
    return 0.002 if resolution >= 1024 else 0.0025


FORMULAS = {
    formula.__name__: formula
    for formula in (
        first, when, equal, plus, times, smaller, share, halved, cpus, style_rows, super_input, super_widths,
        half_precision, micro_batch, auto_batch, auto_gamma, auto_channel_base, auto_learning_rate,
    )
}  # fmt: skip
