"""The order in which training sees the items of a data set: an infinite stream that can be entered anywhere.

The item at position p is a pure function of (seed, length, p): every epoch, `length` positions long, is a permutation
of its own. So a run that continues from n images reads on at position n, whatever the number of ranks or workers.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def _order(seed: int, length: int, epoch: int) -> np.ndarray:
    # RandomState's streams are frozen by numpy's policy; the newer Generator's are not.
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(length)


def items(seed: int, length: int, start: int, count: int, step: int = 1) -> list[int]:
    """Items at positions start, start + step, ... (count of them) of the stream over a data set of `length` items."""
    positions: Sequence[int] = range(start, start + count * step, step)
    return [int(_order(seed, length, p // length)[p % length]) for p in positions]
