"""What a configuration costs: seconds of generation and of training, measured on the path that training takes.

Wall-clock time; a GPU is waited for before the clock is read. Whatever is timed has run WARM_UP times before, because
the first runs make optimisers' moments, choose convolutions and fill caches. apps/benchmark.py calls it.
"""

import copy
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from dnnlib.progress import progress
from torch_utils import distributed
from torch_utils.ops import native
from training.build import build_rig
from training.contracts import Batch, Condition, Draws, Generator, SceneGenerator
from training.data.loader import batches
from training.loop import prepare_device
from training.phases import Phase
from training.reporting import memory_gb
from training.setup import build_run
from training.snapshot import averages_of
from training.state import RunState

T = TypeVar("T")
WARM_UP = 2
VIEWS = "further views of one scene"
SOURCE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """How long one kind of work took, each time it was done."""

    name: str
    images: int  # that are made, or trained on, each time
    seconds: tuple[float, ...]  # of every repeat
    every: int = 1  # in training: it is done in every so many iterations

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.median

    @property
    def per_kimg(self) -> float:
        """Seconds per 1,000 images, spread over the iterations in which it is not done."""
        return self.median / self.every / self.images * 1000


class Stopwatch:
    """Times work on a device. `now` is the clock, in seconds."""

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.now = device, now

    def time(self, work: Callable[[], T]) -> tuple[T, float]:
        """What the work gives, and its seconds."""
        self._finish()
        start = self.now()
        result = work()
        self._finish()
        return result, self.now() - start

    def repeats(self, work: Callable[[], object], count: int) -> tuple[float, ...]:
        """Seconds of each of `count` times, after the warm-up."""
        return tuple(self.time(work)[1] for _ in range(WARM_UP + count))[WARM_UP:]

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that could begin: what training.loop builds before its first batch."""

    config: Mapping[str, Any]
    dataset: Any
    device: torch.device
    phases: list[Phase]
    run: RunState


def open_job(config: Mapping[str, Any], dataset: Any, nimg: int) -> Job:
    """Build a resolved configuration. nimg: images seen so far, as all schedules are to believe."""
    device = prepare_device(config)
    run, phases = build_run(config, device, config["resume"])
    run.nimg = nimg
    return Job(config=config, dataset=dataset, device=device, phases=phases, run=run)


def find_generator(job: Job) -> Generator | None:
    """The net that makes images, averaged where there is an average, as generate.py shows it; None if none does."""
    for name, net in job.run.nets.items():
        if isinstance(net, Generator):
            averages = averages_of(name, job.config)
            return cast(Generator, job.run.averages[averages[0]][2] if averages else copy.deepcopy(net).eval())
    return None


@torch.no_grad()
def time_generation(job: Job, watch: Stopwatch, repeats: int) -> list[Timing]:
    """Pictures of new latents, one by one and batch_gpu at once; views of one scene, for a generator that has scenes.

    Deterministic options and the rig's mean camera, as for stills. Empty if no net makes images.
    """
    G = find_generator(job)
    if G is None:
        return []
    options, rig, pool = G.options_at(job.run.nimg).still(), build_rig(job.config), job.dataset
    camera = rig.mean.to(job.device)

    def latents(n: int) -> tuple[torch.Tensor, Condition]:
        draws = Draws(seed=job.config["seed"], phase="timing", items=range(n), batch=n, device=job.device)
        label = pool.conditions(draws.integers("item", len(pool)).cpu()).label
        return draws.normal("z", (G.z_dim,)), Condition(camera=camera.expand(n), label=label).to(job.device)

    timings = []
    for n in dict.fromkeys((1, job.config["batch_gpu"])):
        z, told = latents(n)

        def make(z: torch.Tensor = z, told: Condition = told) -> object:
            return G.synthesis(G.mapping(z, told), told.camera, options)

        timings.append(Timing(f"new latents, batch {n}", n, watch.repeats(make, repeats)))
    if isinstance(G, SceneGenerator):
        scene = G.scene(G.mapping(*latents(1)), options)
        seconds = watch.repeats(lambda: G.render(scene, camera, options), repeats)
        timings.append(Timing(VIEWS, 1, seconds))
    return timings


def try_training(config: Mapping[str, Any], dataset: Any, nimg: int, repeats: int) -> tuple[list[Timing], float]:
    """time_training() of a configuration, and the peak memory of all ranks in 2^30 bytes. Every rank calls it."""
    job = open_job(config, dataset, nimg)
    timings = time_training(job, Stopwatch(job.device), repeats)
    return timings, float(distributed.rows_of_ranks(torch.tensor(peak_memory_gb(job.device))).sum())


def time_training(job: Job, watch: Stopwatch, repeats: int) -> list[Timing]:
    """The parts of an iteration in the loop's order: waiting for data, every phase, the averages of weights.

    Every round does each part once, whether or not the phase would be due. What workers have decoded before the first
    round is thrown away: it would hide what data cost.
    """
    config, workers = job.config, job.config["workers"]
    stream = batches(
        dataset=job.dataset, batch=config["batch"], seed=config["seed"], rank=distributed.rank(),
        world=distributed.world(), workers=workers, device=job.device,
    )  # fmt: skip
    for _ in range(2 * workers):
        next(stream)
    count = WARM_UP + repeats
    said = progress(range(count), count, "training") if distributed.rank() == 0 else range(count)
    rounds = [_round(job, stream, watch) for _ in said]
    everys = [1, *(phase.every for phase in job.phases), 1]
    names = ["data", *(phase.name for phase in job.phases), "averages"]
    return [
        Timing(name, config["batch"], seconds, every)
        for name, every, seconds in zip(names, everys, zip(*rounds[WARM_UP:], strict=True), strict=True)
    ]


def _round(job: Job, stream: Iterator[Batch], watch: Stopwatch) -> list[float]:
    """One iteration in which every phase is due; seconds of each part."""
    run, size = job.run, job.config["batch"]
    batch, waited = watch.time(lambda: next(stream))
    seconds = [waited]
    for phase in job.phases:

        def step(phase: Phase = phase) -> None:
            run.runner.run(phase, batch, run.nimg, run.collector.report)

        seconds.append(watch.time(step)[1])

    def follow() -> None:
        for followed, rule, slow in run.averages.values():
            rule.update(slow, run.nets[followed], run.nimg, size, run.iteration)

    seconds.append(watch.time(follow)[1])
    run.nimg += size
    run.iteration += 1
    return seconds


def peak_memory_gb(device: torch.device) -> float:
    """The most memory so far, 2^30 bytes: of tensors on a GPU, else resident in this process (without data workers)."""
    if device.type == "cuda":
        return memory_gb(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also remembers the process that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def machine_name(device: torch.device) -> str:
    """The GPU, or the CPU and how many of its cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or platform.processor() or platform.machine()}, {cores} cores"


def commit() -> str:
    """The commit of this source, "dirty" if any file differs from it or is new; "unknown" without git."""
    try:
        head, changes = (
            subprocess.run(["git", "-C", SOURCE, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} (dirty)" if changes else head


def facts(job: Job) -> dict[str, Any]:
    """On what it was measured, and of what; plain values."""
    keys = ("data", "gpus", "batch", "batch_gpu", "workers", "precision", "allow_tf32", "seed", "choices")
    return {
        "commit": commit(),
        "machine": machine_name(job.device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "operators": native.version(job.device.type),
        "device": str(job.device),
        "resolution": job.dataset.resolution,
        **{key: job.config[key] for key in keys},
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in job.run.nets.items()},
    }
