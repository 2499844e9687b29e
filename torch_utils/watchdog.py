"""A rank that hangs without ending would let all others wait for ever. It ends itself, and says where it stood.

Waiting for other ranks is not its own work, and does not count. Imports no other file of ours.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

POLL = 1.0  # seconds between looks
FROZEN = 60.0  # seconds after which a process whose threads cannot run either is ended from below
EXIT_CODE = 3  # of a training that was stopped

_patience: float | None = None  # seconds; None: nobody watches
_deadline: float | None = None  # of the work under way


def _begin() -> None:
    global _deadline
    if _patience is not None:
        _deadline = time.monotonic() + _patience
        faulthandler.dump_traceback_later(_patience + FROZEN, exit=True)  # needs no lock of the interpreter


def _end() -> None:
    global _deadline
    if _deadline is not None:
        _deadline = None
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def watched(minutes: float, who: str) -> Iterator[None]:
    """End the process if it works for longer without a word with others. who: how it is called."""
    global _patience
    _patience, done = minutes * 60, threading.Event()
    threading.Thread(target=_watch, args=[done, minutes, who], daemon=True).start()
    _begin()
    try:
        yield
    finally:
        _end()
        _patience = None
        done.set()


@contextmanager
def unwatched() -> Iterator[None]:
    """Inside, others are waited for, or work is done that may take as long as it likes."""
    working = _deadline is not None
    _end()
    try:
        yield
    finally:
        if working:
            _begin()


def _watch(done: threading.Event, minutes: float, who: str) -> None:
    while not done.wait(POLL):
        if _deadline is not None and time.monotonic() > _deadline:
            why = f"has not come back from its work for {minutes:g} minutes (hang_after={minutes:g}), so it is ended"
            advice = "The training state is kept: continue with resume_run. This is where it stands"
            print(f"error: {who} {why}. {advice}:", file=sys.stderr, flush=True)
            faulthandler.dump_traceback()
            os._exit(EXIT_CODE)
