"""The C texts of operators, compiled for this machine's CPU when one is first needed.

All texts become one shared library in the cache folder ($PARALLAX_CACHE, or parallax in $XDG_CACHE_HOME or ~/.cache).
Its name is a hash of the texts, the compiler and the processor, and it is written under another name first: processes
that compile at the same time do not disturb each other, and there is no lock. Without a C compiler there is no library
and the twins serve. Imports no other file of ours.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
THREADS = "-fopenmp"  # with a compiler that lacks it, one thread does all
TEXTS = Path(__file__).resolve().parent
SLOWEST = 120  # seconds that a compiler may take; it takes two

_choice = "auto"


class Unavailable(Exception):
    """There is no library, and why."""


class CompilerError(Unavailable):
    """The compiler refuses."""


def choose(ops: str) -> None:
    """Whether operators may use the library: "auto" where there is one, "torch" never."""
    global _choice
    _choice = ops


def ready(*tensors: torch.Tensor) -> bool:
    """Whether operators are to use the library, which takes float32 on the CPU and nothing empty."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in tensors)
    return plain and _choice != "torch" and why_not() is None


def call(function: str, *arguments: Any) -> None:
    """Call a function of the library: whole numbers are int64, tensors and structures go by address, None is null.

    Raises MemoryError if it says so.
    """
    if getattr(library(), function)(*map(_as_c, arguments)):
        raise MemoryError(f"{function}, an operator, has no memory for what it works with")


def _as_c(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return argument if argument is None else ctypes.c_int64(argument)


def in_words(device: str) -> str:
    """Which way operators go on that type of device, and why: one line for the start of a run."""
    if device != "cpu":
        return f"Operators: torch's own, as there are none of ours for {device} yet."
    if _choice == "torch":
        return "Operators: torch's own, as ops=torch says."
    if why_not():
        return f"Operators: torch's own, which is slower, since {why_not()}."
    return f"Operators: compiled for this CPU, {Path(library()._name).name}."


def version(device: str) -> str:
    """What the last bits of the operators depend on, on that type of device."""
    return Path(library()._name).stem if device == "cpu" and ready() else "torch"


@cache
def why_not() -> str | None:
    """Why there is no library; None if there is."""
    try:
        library()
    except Unavailable as reason:
        return str(reason)
    return None


@cache
def library() -> ctypes.CDLL:
    """The library of all texts. Raises Unavailable, with a reason to print, if it cannot be had."""
    try:
        command, name = _command(), _name()
        try:
            return _loaded([*command, THREADS], cache_folder() / f"{name}.so")
        except CompilerError:
            return _loaded(command, cache_folder() / f"{name}-one-thread.so")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        place = "PARALLAX_CACHE" if os.environ.get("PARALLAX_CACHE") else "the cache folder"
        raise Unavailable(f"{place} cannot be used: {error}") from error


def workers_for(units: int) -> int:
    """How many threads a job of so many independent units is worth: at most those that torch may use."""
    return max(1, min(torch.get_num_threads(), units))


def cache_folder() -> Path:
    """Where libraries are kept."""
    own, shared = os.environ.get("PARALLAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path(shared or Path.home() / ".cache") / "parallax").absolute()


def _name() -> str:
    """Of the library, by all that it depends on."""
    texts = [text.read_text(encoding="utf-8") for text in sorted([*TEXTS.glob("*.c"), *TEXTS.glob("*.h")])]
    key = "\n".join([*texts, *_command(), _run([_compiler(), "--version"]), _processor()])
    return f"operators-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _loaded(command: list[str], path: Path) -> ctypes.CDLL:
    if not path.exists():
        _compile(command, path)
    for place in (path, path.parent):  # what is loaded may do anything
        status = place.stat()
        if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
            raise Unavailable(f"others can write {place}: let PARALLAX_CACHE name a folder of yours")
    return ctypes.CDLL(str(path))


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        raise Unavailable("there is no C compiler")
    return found


def _command() -> list[str]:
    return [_compiler(), *FLAGS, "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"]


def _compile(command: list[str], target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=target.parent) as draft:
        built = Path(draft) / target.name
        _run([*command, *map(str, sorted(TEXTS.glob("*.c"))), "-o", str(built)])
        with open(built, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(built, target)


def _run(command: list[str]) -> str:
    """What it prints. A group of its own, so that all that it starts can be ended; in English."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace",
        env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=SLOWEST)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Unavailable(f"{command[0]} took more than {SLOWEST} s") from error
    if process.returncode:
        said = (err or out).strip().splitlines() or [f"exit status {process.returncode}"]
        kind = CompilerError if process.returncode > 0 else Unavailable
        raise kind(f"{command[0]} failed: {next((line for line in said if 'error' in line), said[0])}")
    return out


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(kinds))) or platform.processor()
