"""Files that are whole or not there, and files that only grow. Knows no torch; anyone may import it."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dnnlib.errors import ConfigError, UserError

DRAFT = ".draft-"  # how the names of unfinished files begin
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # why a disk takes no more


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], error: type[UserError] = ConfigError, advice: str | None = None
) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends well and vanishes when it does not.

    Until the new content is complete and on disk, what was at `path` stays as it is. The folder is made if it is
    missing. Raises `error` with the system's reason and the advice if it cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{DRAFT}{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        _to_disk(temporary)
        temporary.replace(path)
        temporary = None
        _to_disk(path.parent)  # the new name itself must survive a power cut
    except OSError as reason:
        raise _unwritable(path, reason, error, advice) from reason
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def sweep(folder: Path) -> None:
    """Remove what writers left that were killed. Only for a folder that nobody writes to now."""
    for draft in folder.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            draft.unlink()


def append(
    path: str | os.PathLike[str], data: bytes, error: type[UserError] = ConfigError, advice: str | None = None
) -> None:
    """Add to the end of a file and see it on disk. A killed writer may leave a part of it: see cut_back.

    Raises `error` with the system's reason and the advice if it cannot be written or the disk is full.
    """
    try:
        with open(path, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        raise _unwritable(path, reason, error, advice) from reason


def check_appendable(path: Path) -> None:
    """Raises ConfigError as append() would. Leaves everything as it is."""
    new = not os.path.lexists(path)
    append(path, b"")
    if new:
        path.unlink()


def length(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def cut_back(path: Path, size: int) -> None:
    """Forget what was appended after the file had `size` bytes."""
    if length(path) > size:
        os.truncate(path, size)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: str | os.PathLike[str], reason: OSError, error: type[UserError], advice: str | None) -> UserError:
    where_to = "free some space or choose another folder" if reason.errno in FULL else "choose another file or folder"
    return error(f"cannot write {path}: {reason.strerror or reason}; {advice or where_to}")
