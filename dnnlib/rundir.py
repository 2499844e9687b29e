"""Run folders: numbered, described, made whole or not at all.

outdir/00007-eg3d-critters-gpus1-batch16-gamma0.01 holds everything one training writes. It appears in one step, with
its first files inside, and two trainings started at once never get the same number. One process at a time owns it.
Knows no torch and no config library; anyone may import it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dnnlib.errors import ConfigError
from dnnlib.files import cut_back, length

CONFIG_FILE = "config.yaml"  # every run folder has one: resolved, reloadable
COMMAND_FILE = "command.txt"  # a line for every start
STATS_FILE = "stats.jsonl"  # a line a tick
METRICS_FILE = "metrics.jsonl"  # a line a metric and snapshot
GROWING = (STATS_FILE, METRICS_FILE)  # what a run that goes on cuts back to its state
LOCK_FILE = ".lock"
NUMBERED = re.compile(r"(\d{5,})-")


def run_name(model: str, data: str, gpus: int, batch: int, gamma: float | None, desc: str | None = None) -> str:
    """What a run is called after its number, as EG3D's users know it: model-data-gpusG-batchB-gammaR[-desc].

    data is a path or a name; only its last part is used. Letters that shells or file systems dislike become _.
    """
    parts = [model, Path(data).name.removesuffix(".zip"), f"gpus{gpus}", f"batch{batch}"]
    parts += [f"gamma{gamma:g}"] if gamma is not None else []
    parts += [desc] if desc else []
    return "-".join(re.sub(r"[^\w.+-]", "_", part, flags=re.ASCII)[:80] for part in parts)


def create_run(outdir: str | Path, name: str, files: Mapping[str, str]) -> Path:
    """Make outdir/NNNNN-name with these files (name -> text) inside. NNNNN is one more than the highest there is.

    Raises ConfigError if the folder cannot be written; then nothing stays behind.
    """
    outdir = Path(outdir)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-run-", dir=outdir))
    except OSError as error:
        raise _unwritable(f"outdir={outdir}", outdir, error) from error
    try:
        draft.chmod(0o777 & ~_umask())
        for file, text in files.items():
            (draft / file).write_text(text, encoding="utf-8")
        with _locked(outdir):
            run = outdir / f"{_highest_number(outdir) + 1:05d}-{name}"
            draft.rename(run)
    except OSError as error:
        raise _unwritable(f"outdir={outdir}", outdir, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return run


def find_run(place: str | Path, which: str = "latest") -> Path:
    """The folder that resume_run means: `latest` is the highest-numbered run in `place`; else `which` is a folder.

    A place that is itself a run is its own latest. Raises ConfigError if there is none.
    """
    folder = Path(place).expanduser() if which == "latest" else Path(which).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return folder
    if which != "latest":
        why = f"it has no {CONFIG_FILE}" if folder.is_dir() else "there is no such folder"
        raise ConfigError(f"resume_run={which} is not a run folder: {why} ({folder.absolute()}).")
    runs = [run for run in _runs(folder) if (run / CONFIG_FILE).is_file()]
    if not runs:
        raise ConfigError(f"resume_run=latest finds no run in outdir={place}; leave resume_run out to start one.")
    return max(runs, key=run_number)


@contextlib.contextmanager
def owned(run: Path) -> Iterator[None]:
    """Keep other processes from training in this folder. Raises ConfigError if one does, naming it.

    The system ends the lock with its owner, whatever ends that. It is lockf's, not flock's, because the owner's data
    workers would inherit flock's, and a killed run could only go on once they had noticed; inside one process it does
    not count.
    """
    try:
        handle = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(f"run folder {run}", run, error) from error
    try:
        _lock(handle, run)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, run: Path) -> None:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # either, by POSIX
        owner = os.read(handle, 200).decode(errors="replace") or "another process"
        raise ConfigError(f"{run} is being trained by {owner}: wait until it ends, or stop it first.") from error
    except OSError as error:
        raise _unwritable(f"run folder {run}", run, error) from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())


def lengths(run: Path) -> dict[str, int]:
    """Bytes of the files that grow with a run."""
    return {name: length(run / name) for name in GROWING}


def cut_back_to(run: Path, sizes: Mapping[str, int]) -> None:
    """Forget what a killed run wrote after `sizes` were taken; of a file that is not named, everything."""
    for name in GROWING:
        cut_back(run / name, sizes.get(name, 0))


def _runs(outdir: Path) -> list[Path]:
    return [path for path in outdir.glob("*-*") if NUMBERED.match(path.name)] if outdir.is_dir() else []


def run_number(run: Path) -> int:
    """The number that a run's folder begins with; -1 for any other folder."""
    found = NUMBERED.match(run.name)
    return int(found[1]) if found else -1


def _highest_number(outdir: Path) -> int:
    return max((run_number(run) for run in _runs(outdir)), default=-1)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock on the folder itself: no file is left behind, and it dies with its owner."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(what: str, place: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"{what} cannot be written: {reason} ({place.absolute()}). Choose another outdir.")
