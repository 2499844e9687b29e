"""One piece of work on several ranks: GPUs, or processes on a CPU. gpus=N starts them here, torchrun anywhere.

The first rank is the process that a person started: it reads the command line, checks, owns the run folder and prints.
The others run the same script, wait for its word, open the same data and do the same work.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.distributed import TCPStore

from dnnlib.errors import TrainingStopped, UserError
from dnnlib.startup import RUN_TRAIN, leave_signals_to_the_first
from torch_utils import distributed, watchdog
from torch_utils.devices import choose_device
from training.build import build_dataset

T = TypeVar("T")
HERE = "127.0.0.1"
PORT = "PARALLAX_RANKS_PORT"  # tells the other ranks where they meet, unless it was torchrun that started them
GRACE = 30.0  # seconds in which ranks end by themselves, or notice that another has ended
HASTE = 5.0  # the same after an error
POLL = 2.0  # seconds between looks at whether the process that started this one is alive


def together(task: Callable[..., T], config: Mapping[str, Any], dataset: Any, *args: Any) -> T:
    """task(config, dataset, *args) on config["gpus"] ranks at once. Returns what it gives on this one, the first.

    task is a function at the top of a module; it and args travel by pickle. Raises TrainingStopped if another rank has
    ended.
    """
    world = config["gpus"]
    if world == 1:
        return task(config, dataset, *args)
    elsewhere = distributed.started_elsewhere()
    with distributed.joined(0, world) if elsewhere else _started_here(world, choose_device(config["device"])):
        distributed.word_of_first(lambda: (task, dict(config), args))
        with watchdog.watched(config["hang_after"], "rank 0"):
            return task(config, dataset, *args)


def follow() -> int:
    """Be another rank than the first, from its word to its end. Returns the exit code."""
    leave_signals_to_the_first()  # until the loop listens
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = TCPStore(HERE, int(os.environ[PORT]), world, is_master=False) if PORT in os.environ else None
        with distributed.joined(rank, world, store):
            task, config, args = distributed.word_of_first(lambda: None)
            with watchdog.watched(config["hang_after"], f"rank {rank}"):
                task(config, build_dataset(config), *args)
    except (UserError, KeyboardInterrupt) as error:
        said = isinstance(error, distributed.RankLost) or getattr(error, "everywhere", False)
        if isinstance(error, UserError) and not said:
            print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 130)
    return 0


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(TrainingStopped.exit_code)


@contextmanager
def _started_here(world: int, device: torch.device) -> Iterator[None]:
    """Be the first of `world` ranks on this machine inside. CPU ranks share the threads that this process had."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(threads // world, 1))
    if "lo" in (name for _, name in socket.if_nameindex()):  # a machine may not know its own name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = TCPStore(HERE, 0, world, is_master=True, wait_for_workers=False)
    others, patience = Others(world, store.port), HASTE
    try:
        with distributed.joined(0, world, store):
            yield
        patience = GRACE
    except distributed.RankLost as error:
        raise TrainingStopped(f"{others.blame()}. The training state is kept: continue with resume_run.") from error
    finally:
        others.end(patience)
        torch.set_num_threads(threads)


class Others:
    """The processes of ranks 1, 2, ... on this machine. What they say on standard error is said here."""

    def __init__(self, world: int, port: int) -> None:
        common = {"WORLD_SIZE": world, PORT: port, "OMP_NUM_THREADS": torch.get_num_threads()}
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self._ending = threading.Event()
        for rank in range(1, world):
            own = {key: str(value) for key, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
            self.processes[rank] = subprocess.Popen(
                [sys.executable, str(RUN_TRAIN)], env={**os.environ, **own}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            threading.Thread(target=self._watch, args=[rank], daemon=True).start()

    def blame(self) -> str:
        """Which of them has ended, and how."""
        deadline = time.monotonic() + GRACE / 3
        while time.monotonic() < deadline:
            ended = {rank: code for rank, process in self.processes.items() if (code := process.poll())}
            # those that only lost sight of another one have the code of a stopped training
            for rank, code in sorted(ended.items(), key=lambda entry: entry[1] == TrainingStopped.exit_code):
                return self._how(rank, code)
            time.sleep(0.1)
        return "a rank cannot be reached any more"

    def end(self, patience: float) -> None:
        """Wait so many seconds for them to end, and see to it if they do not."""
        self._ending.set()
        deadline = time.monotonic() + patience
        for process in self.processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self, rank: int) -> None:
        """Pass on what a rank says. If this process does not notice its end, as within a GPU's collective, end it."""
        process = self.processes[rank]
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(f"[rank {rank}] {line}")
        code = process.wait()
        if code and not self._ending.wait(GRACE):
            print(f"error: {self._how(rank, code)}", file=sys.stderr, flush=True)
            os._exit(TrainingStopped.exit_code)

    @staticmethod
    def _how(rank: int, code: int) -> str:
        if code < 0:
            why = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
            return f"rank {rank} was killed by {signal.Signals(-code).name}{why}"
        return f"rank {rank} has ended with exit code {code}; what it said stands above"
