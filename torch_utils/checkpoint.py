"""Files that are whole or not there: atomic writes of nested dictionaries of tensors, and reads that run no code."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import CheckpointError
from dnnlib.files import whole_file


def write_whole(data: bytes | memoryview, path: str | os.PathLike[str]) -> None:
    """Write a file atomically. Raises CheckpointError if it cannot; what was there before is then unchanged."""
    advice = "what was there before is unchanged. Free some space or make the folder writable, then use resume_run"
    with whole_file(path, CheckpointError, advice) as temporary:
        temporary.write_bytes(data)


def save(state: Any, path: str | os.PathLike[str]) -> None:
    """Write a nested dictionary of tensors and plain values. Raises CheckpointError if it cannot."""
    buffer = io.BytesIO()  # torch's own file writer aborts the process when the disk is full
    torch.save(state, buffer)
    write_whole(buffer.getbuffer(), path)


def load(path: str | os.PathLike[str]) -> Any:
    """Read what save() wrote. Raises CheckpointError for a file that is absent, cut short or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a training state of ours, or it was cut short: {error}") from error
