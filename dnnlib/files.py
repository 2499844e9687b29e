"""Files that are whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dnnlib.errors import ConfigError, UserError


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], error: type[UserError] = ConfigError, advice: str = "choose another folder"
) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends well and vanishes when it does not.

    Until the new content is complete and on disk, what was at `path` stays as it is. The folder is made if it is
    missing. Raises `error` with the system's reason and the advice if it cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        _to_disk(temporary)
        temporary.replace(path)
        temporary = None
        _to_disk(path.parent)  # the new name itself must survive a power cut
    except OSError as reason:
        raise error(f"cannot write {path}: {reason.strerror or reason}; {advice}") from reason
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
