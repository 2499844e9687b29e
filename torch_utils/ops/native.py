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
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
THREADS = "-fopenmp"  # with a compiler that lacks it, one thread does all
TEXTS = Path(__file__).resolve().parent
SLOWEST = 120  # seconds that a compiler may take; it takes two

_choice = "auto"


class Unavailable(Exception):
    """There is no library, and why."""


def choose(ops: str) -> None:
    """Whether operators may use the library: "auto" where there is one, "torch" never."""
    global _choice
    _choice = ops


def ready() -> bool:
    """Whether operators are to use the library."""
    return _choice != "torch" and why_not() is None


def in_words(device: str) -> str:
    """Which way operators go on that type of device, and why: one line for the start of a run."""
    if device != "cpu":
        return f"Operators: torch's own, as there are none of ours for {device} yet."
    if _choice == "torch":
        return "Operators: torch's own, as ops=torch says."
    if why_not():
        return f"Operators: torch's own, which is slower, since {why_not()}."
    return f"Operators: compiled for this CPU, {_path().name}."


def version(device: str) -> str:
    """What the last bits of the operators depend on, on that type of device."""
    return _path().stem if device == "cpu" and ready() else "torch"


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
        path = _path()
        if not path.exists():
            _compile(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise Unavailable(str(error)) from error


def workers_for(units: int) -> int:
    """How many threads a job of so many independent units is worth: at most those that torch may use."""
    return max(1, min(torch.get_num_threads(), units))


def cache_folder() -> Path:
    """Where libraries are kept."""
    own, shared = os.environ.get("PARALLAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path(shared or Path.home() / ".cache") / "parallax").absolute()


@cache
def _path() -> Path:
    """The library's place, whether or not it is there."""
    texts = [text.read_text(encoding="utf-8") for text in sorted([*TEXTS.glob("*.c"), *TEXTS.glob("*.h")])]
    key = "\n".join([*texts, *_command(), _run([_compiler(), "--version"]), _processor()])
    return cache_folder() / f"operators-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        raise Unavailable("there is no C compiler")
    return found


def _command() -> list[str]:
    return [_compiler(), *FLAGS, "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"]


def _compile(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=target.parent) as draft:
        built = Path(draft) / target.name
        command = [*_command(), *map(str, sorted(TEXTS.glob("*.c"))), "-o", str(built)]
        try:
            _run([*command, THREADS])
        except Unavailable:
            _run(command)
        with open(built, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(built, target)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SLOWEST, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took more than {SLOWEST} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unavailable(f"{command[0]} failed: {next((line for line in said if 'error' in line), said[0])}")
    return done.stdout


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(kinds))) or platform.processor()
