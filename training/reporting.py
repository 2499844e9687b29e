"""What a run tells people: a header, a line a tick, a bar on a terminal, stats.jsonl and TensorBoard events."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

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
    """Writes the statistics of a run. Everything that depends on the clock stands under "time"."""

    def __init__(self, folder: Path, total_kimg: float, device: torch.device, elapsed: float = 0.0) -> None:
        self.folder, self.total_kimg, self.device = folder, total_kimg, device
        self.started = time.time() - elapsed
        self.tick_time, self.tick_nimg = time.time(), -1
        self.stats = open(folder / "stats.jsonl", "ab")  # noqa: SIM115
        self._events: Any = None
        self._bar = None

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    def offset(self) -> int:
        """Bytes of stats.jsonl that are safely on disk."""
        self.stats.flush()
        os.fsync(self.stats.fileno())
        return self.stats.tell()

    def cut_back(self, offset: int) -> None:
        """Forget the lines that a killed run wrote after its last state."""
        self.stats.truncate(offset)
        self.stats.seek(0, os.SEEK_END)

    def begin(self, nimg: int) -> None:
        print(HEADER)
        self.tick_time, self.tick_nimg = time.time(), nimg

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
        line = {"nimg": nimg, "tick": tick, "stats": statistics, "time": times}
        self.stats.write(json.dumps(line).encode() + b"\n")
        self.stats.flush()
        losses = "  ".join(f"{name.removeprefix('loss/')} {s['mean']:.3f}" for name, s in statistics.items())
        if self._bar is not None:
            self._bar.clear()
        print(
            f"{nimg / 1000:8.1f}  {clock(self.elapsed):>9}  {clock(to_go):>9}  {pace:7.2f}  {1000 / pace:6.1f}  "
            f"{memory:9.2f}  {losses}"
        )
        self._write_events(nimg, statistics, times)

    def _write_events(self, nimg: int, statistics: Mapping[str, Mapping[str, float]], times: dict[str, Any]) -> None:
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("TensorBoard is not installed, so no event file is written: pip install tensorboard")
                self._events = False
                return
            self._events = SummaryWriter(str(self.folder), purge_step=nimg)
        if self._events:
            for name, s in statistics.items():
                self._events.add_scalar(name, s["mean"], nimg)
            self._events.add_scalar("speed/s_per_kimg", times["s_per_kimg"], nimg)
            self._events.flush()

    def close(self) -> None:
        self.stats.close()
        if self._bar is not None:
            self._bar.close()
        if self._events:
            self._events.close()
