"""What is compiled on this machine and kept: where, and how compilers are run. Imports no other file of this floor.

The cache folder is that of downloads. A file's name holds a hash of all that
it depends on, and it is written under another name first: processes that compile at the same time do not disturb each
other, and there is no lock.
"""

import hashlib
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnnlib import download

TEXTS = Path(__file__).resolve().parent
SLOWEST = 120  # seconds that a compiler may take; it takes a few


class Unavailable(Exception):
    """It cannot be had, and why."""


class CompilerError(Unavailable):
    """The compiler refuses."""


def cache_folder() -> Path:
    """Where what is compiled is kept. Raises RuntimeError if there is no home folder."""
    return download.cache_folder().absolute()


@contextmanager
def cache_in_words() -> Iterator[None]:
    """Where files make trouble inside, Unavailable says so."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        place = "PARALLAX_CACHE" if os.environ.get("PARALLAX_CACHE") else "the cache folder"
        raise Unavailable(f"{place} cannot be used: {error}") from error


def digest(*parts: str) -> str:
    """A short name for all of them together."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def keep(paths: Sequence[Path], make: Callable[[Path, list[Path]], None]) -> None:
    """See to it that these files of one folder are there: make(draft folder, paths) writes those of them that are not.

    Raises Unavailable if others can write them: what is loaded may do anything.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        folder = missing[0].parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".compiling-", dir=folder) as draft:
            make(Path(draft), missing)
            for path in missing:
                with open(Path(draft) / path.name, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(Path(draft) / path.name, path)
    for place in (*paths, *{path.parent for path in paths}):
        status = place.stat()
        if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
            raise Unavailable(f"others can write {place}: let PARALLAX_CACHE name a folder of yours")


def run(command: list[str], name: str | None = None) -> str:
    """What it prints. A group of its own, so that all that it starts can be ended; in English.

    Raises Unavailable with its first error; `name` is what to call it.
    """
    name = name or command[0]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace",
        env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=SLOWEST)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Unavailable(f"{name} took more than {SLOWEST} s") from error
        raise
    if process.returncode:
        said = [*err.strip().splitlines(), *out.strip().splitlines()] or [f"exit status {process.returncode}"]
        kind = CompilerError if process.returncode > 0 else Unavailable
        raise kind(f"{name} failed: {first_error(said)}")
    return out


def first_error(lines: Sequence[str]) -> str:
    """The line of a compiler's words that says most."""
    return next((line for line in lines if "error" in line or "fatal" in line), lines[0])
