"""Files that are whole or not there: atomic writes of nested dictionaries of tensors, and reads that run no code."""

import contextlib
import io
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from dnnlib.errors import CheckpointError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes its name only when it is complete and on disk.

    Until then, and for ever if anything fails, what was at `path` stays as it is. Raises CheckpointError with the
    system's reason if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        folder = os.open(path.parent, os.O_RDONLY)  # the new name itself must survive a power cut
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged; "
            f"free some space or make the folder writable, then continue with resume_run."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def save(state: Any, path: str | os.PathLike[str]) -> None:
    """Write a nested dictionary of tensors and plain values. Raises CheckpointError if it cannot."""
    buffer = io.BytesIO()  # torch's own file writer aborts the process when the disk is full
    torch.save(state, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def load(path: str | os.PathLike[str]) -> Any:
    """Read what save() wrote. Raises CheckpointError for a file that is absent, cut short or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a training state of ours, or it was cut short: {error}") from error
