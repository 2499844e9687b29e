"""How a process of ours starts. Call prepare_process() before torch loads. Imports nothing of ours."""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

RUN_TRAIN = Path(__file__).resolve().parents[1] / "run_train.py"  # what further processes of a training run
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # ask a training to save and stop

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
PR_SET_PDEATHSIG = 1  # sys/prctl.h


def prepare_process() -> None:
    """Make waiting threads and freed memory cheap; the caller's own environment wins.

    OpenMP threads that spin while they wait can cost 20x where CPUs are shared; waking sleeping ones costs a third of
    the speed where they are not. So they spin for some microseconds, then sleep (docs/benchmarks.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    keep_freed_memory()


def leave_signals_to_the_first() -> None:
    """A terminal or a scheduler signals the whole group; one process answers, and the others end when it says so."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_with_the_parent() -> None:
    """Let Linux end this process when the one that started it ends, even by SIGKILL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor instead of giving every page back to the system.

    By default large blocks are mapped and unmapped anew each time, and on a CPU the page faults can cost more than the
    arithmetic. The process then holds its peak memory until it ends. Does nothing on other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
