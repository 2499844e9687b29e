"""How far a loop is and when it will end: a bar on a terminal, a line now and then elsewhere. Knows no torch."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SILENCE = 10.0  # seconds between lines where there is no terminal


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, while telling on standard error how many of `total` are done and how long the rest will take."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, total=total, dynamic_ncols=True, leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= SILENCE:
            left = (now - start) / done * (total - done)
            print(f"{what}: {done} of {total}, {left:.0f} s to go", file=sys.stderr, flush=True)
            said = now
        yield item
