"""Errors that a user can cause. Each message says what is wrong, where, and what to do.

The command lines print these as one sentence and exit with `exit_code`; any other exception is a defect of ours
and keeps its traceback.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NEEDED = {"torch", "hydra", "omegaconf", "numpy", "PIL", "safetensors", "imageio", "tqdm", "jaxtyping", "scipy",
          "skimage"}  # fmt: skip


class UserError(Exception):
    """Something outside the program is wrong: a key, a value, a path, a file, a data set."""

    exit_code = 2


class ConfigError(UserError):
    """A key, group or value of the configuration cannot be used."""


class DataError(UserError):
    """A data set or one of its entries cannot be used."""


class CheckpointError(UserError):
    """A snapshot, training state or published file cannot be used."""


class TrainingStopped(UserError):
    """Training ended before its time: non-finite numbers, a full disk, a dead rank.

    everywhere: every rank has come to it, so that one of them says it.
    """

    exit_code = 3

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


@contextmanager
def missing_packages_in_words() -> Iterator[None]:
    """Where a library is not installed for this Python, ConfigError says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in NEEDED:
            raise ConfigError(
                f"{name} is not installed for {sys.executable}. After `make demo` say `source .venv/bin/activate`; "
                "without make, `python -m pip install -r requirements.txt`."
            ) from error
        raise
