"""What a run tells people: a header, a line a tick, a bar on a terminal, stats.jsonl and TensorBoard events."""

import io
import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import TrainingStopped
from dnnlib.files import append
from dnnlib.rundir import STATS_FILE
from torch_utils.ops import native

FULL = (TrainingStopped, "the training state is unchanged: free some space, then go on with resume_run")
HEADER = f"{'kimg':>8}  {'elapsed':>9}  {'to go':>9}  {'s/kimg':>7}  {'img/s':>6}  {'memory GB':>9}  losses"


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 59s, 12m 05s, 3h 02m, 2d 07h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def memory_gb(device: torch.device) -> float:
    """Peak memory of the device, or what this process holds of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


class Reporter:
    """Writes the statistics of a run. Everything that depends on the clock stands under "time".

    Raises TrainingStopped when a file cannot be written.
    """

    def __init__(self, folder: Path, total_kimg: float, device: torch.device, elapsed: float = 0.0) -> None:
        self.folder, self.total_kimg, self.device = folder, total_kimg, device
        self.started = time.time() - elapsed
        self.tick_time, self.tick_nimg = time.time(), -1
        self._events: Events | None = None
        self._bar = None

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    def begin(self, nimg: int) -> None:
        print(native.in_words(self.device.type))
        print(HEADER)
        self.tick_time, self.tick_nimg = time.time(), nimg
        try:
            self._events = Events(self.folder, nimg)
        except ImportError:
            print("TensorBoard is not installed, so no event file is written: pip install tensorboard")

    def advance(self, nimg: int, batch: int) -> None:
        """Move the bar, if there is a terminal to draw it on."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            total = int(self.total_kimg * 1000)
            self._bar = tqdm(total=total, initial=nimg, unit="img", leave=False, dynamic_ncols=True)
        self._bar.update(batch)

    def tick(self, nimg: int, tick: int, statistics: Mapping[str, Mapping[str, float]]) -> None:
        """One line on the screen, one in stats.jsonl, one point in every TensorBoard curve."""
        now = time.time()
        images = max(nimg - self.tick_nimg, 1)
        pace = (now - self.tick_time) / images * 1000
        self.tick_time, self.tick_nimg = now, nimg
        to_go = max(self.total_kimg - nimg / 1000, 0) * pace
        memory = memory_gb(self.device)
        times = {"elapsed": self.elapsed, "s_per_kimg": pace, "memory_gb": memory, "timestamp": now}
        known = {name: {k: v if math.isfinite(v) else None for k, v in s.items()} for name, s in statistics.items()}
        line = {"nimg": nimg, "tick": tick, "stats": known, "time": times}  # JSON has no NaN
        losses = "  ".join(f"{name.removeprefix('loss/')} {s['mean']:.3f}" for name, s in statistics.items())
        if self._bar is not None:
            self._bar.clear()
        print(
            f"{nimg / 1000:8.1f}  {clock(self.elapsed):>9}  {clock(to_go):>9}  {pace:7.2f}  {1000 / pace:6.1f}  "
            f"{memory:9.2f}  {losses}"
        )
        append(self.folder / STATS_FILE, json.dumps(line).encode() + b"\n", *FULL)
        if self._events is not None:
            means = {name: s["mean"] for name, s in statistics.items()}
            self._events.add(nimg, {**means, "speed/s_per_kimg": pace})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Silence(Reporter):
    """What ranks other than the first tell."""

    def begin(self, nimg: int) -> None:
        pass

    def advance(self, nimg: int, batch: int) -> None:
        pass

    def tick(self, nimg: int, tick: int, statistics: Mapping[str, Mapping[str, float]]) -> None:
        pass


class Events:
    """The event file that TensorBoard reads; one for every start of a run.

    TensorBoard's own writer leaves the disk to a thread, which dies with a traceback when it is full; this one writes
    at once. Raises ImportError without TensorBoard.
    """

    def __init__(self, folder: Path, nimg: int) -> None:
        """nimg: images seen; what an earlier start has written of later ones is forgotten by TensorBoard."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore

        self._event, self._summary = Event, Summary
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._write(file_version="brain.Event:2")
        self._write(step=nimg + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, nimg: int, values: Mapping[str, float]) -> None:
        """One point of every curve."""
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=nimg, summary=self._summary(value=points))

    def _write(self, **what: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(self._event(wall_time=time.time(), **what).SerializeToString())
        append(self.path, record.getvalue(), *FULL)
