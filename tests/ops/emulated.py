"""CUDA texts on a CPU: compiled with emulator.h, they work on tensors of the CPU as on those of a GPU."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from torch_utils.ops import builds, gpu, native
from torch_utils.ops.cubins import Text

COMPILER = shutil.which("g++")
WHY_NOT = "no g++ on this machine, which the emulator of GPUs needs"
HEADER = Path(__file__).parent / "emulator.h"
FOLDER = tempfile.TemporaryDirectory(prefix="emulated-")


@cache
def library(text: Text) -> ctypes.CDLL:
    """The text for this CPU."""
    assert COMPILER
    target = Path(FOLDER.name) / f"{text.name}-{builds.digest(*text.macros)}.so"
    words = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-Werror=uninitialized", "-x", "c++"]
    words += ["-include", str(HEADER), f"-I{builds.TEXTS}", *(f"-D{macro}" for macro in text.macros)]
    subprocess.run([*words, str(builds.TEXTS / f"{text.name}.cu"), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


class Emulator:
    """What launches kernels instead of a GPU, and remembers which."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.backwards = False  # the order in which a warp's threads take turns, of which nothing may depend

    def launch(self, text: Text, kernel: str, job: ctypes.Structure, device, blocks: int, threads: int) -> None:
        self.launched.append(kernel)
        getattr(library(text), kernel)(ctypes.byref(job), blocks, threads, self.backwards)


@contextmanager
def emulated(blocks: int = 3) -> Iterator[Emulator]:
    """Operators take the kernels of GPUs inside; kernels whose blocks take all work in turn have so many of them."""
    if COMPILER is None:
        pytest.skip(WHY_NOT)
    emulator = Emulator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernel_ready", lambda text, *tensors: all(t.numel() for t in tensors))
        patch.setattr(native, "launch", emulator.launch)
        patch.setattr(gpu, "blocks_for", lambda index, wanted: min(wanted, blocks))
        yield emulator
