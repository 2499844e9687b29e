"""The one training loop: fetch a batch, run the due phases, follow with the averages, keep the run folder.

It knows nets and phases, never a model. Everything random is a function of (seed, images seen), so a run continues
from its state bit for bit.
"""

import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import TrainingStopped
from dnnlib.rundir import METRICS_FILE, cut_back_to
from dnnlib.startup import SIGNALS
from torch_utils import distributed, watchdog
from torch_utils.devices import choose_device
from torch_utils.images import depth_picture, save_grid
from torch_utils.ops import native
from training.build import build, build_rig
from training.contracts import CameraRig, SceneGenerator
from training.data.loader import batches
from training.measuring import append_rows, measure
from training.phases import Phase
from training.programs.measured import MeasuredGenerator
from training.reporting import FULL, Reporter, Silence
from training.setup import build_run
from training.snapshot import SNAPSHOTS, save_snapshot
from training.state import STATE_FILE, RunState, describe

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def train(config: Mapping[str, Any], dataset: Any, folder: Path) -> int:
    """Train what the resolved configuration says, in its run folder. Returns the exit code.

    dataset is open already. A folder that holds a training state is continued from it, any other from its beginning.
    """
    device = prepare_device(config)
    (resuming,) = distributed.largest((folder / STATE_FILE).exists())
    with memory_in_words():
        run, phases = build_run(config, device, None if resuming else config["resume"])
        run.data = describe(dataset)
        elapsed = run.load(folder) if resuming else 0.0
        report = (Silence if distributed.rank() else Reporter)(folder, config["kimg"], device, elapsed)
        keeper = Keeper(config, folder, run, report, build_rig(config), dataset, device)
        if not resuming:
            keeper.begin()
        distributed.largest(0)  # a word for those who wait for the first pictures
        report.begin(run.nimg)
        try:
            stopped_by = iterate(config, dataset, run, phases, keeper)
        finally:
            report.close()
    if stopped_by:
        again = shlex.join(["python", "run_train.py", f"resume_run={folder}"])
        print(f"Stopped by {stopped_by.name}; continue with: {again}")
        return 128 + stopped_by
    keeper.say_goodbye()
    return 0


def iterate(
    config: Mapping[str, Any], dataset: Any, run: RunState, phases: list[Phase], keeper: "Keeper"
) -> signal.Signals | None:
    """Train until kimg is reached or a signal asks to stop; the state is saved in either case. Returns the signal."""
    total = round(config["kimg"] * 1000)
    stream = batches(
        dataset, batch=config["batch"], seed=config["seed"], start=run.nimg, rank=distributed.rank(),
        world=distributed.world(), workers=config["workers"], device=keeper.device,
    )  # fmt: skip
    with caught_signals() as caught, closing(stream):
        while run.nimg < total:
            batch = next(stream)
            for phase in phases:
                if run.iteration % phase.every == 0:
                    run.runner.run(phase, batch, run.nimg, run.collector.report)
            for followed, rule, slow in run.averages.values():
                rule.update(slow, run.nets[followed], run.nimg, config["batch"], run.iteration)
            run.nimg += config["batch"]
            run.iteration += 1
            run.end_iteration(config["batch"])
            keeper.report.advance(run.nimg, config["batch"])
            done = run.nimg >= total
            if done or run.iteration == 1 or run.nimg >= run.tick_nimg + config["tick"] * 1000:
                with watchdog.unwatched():  # pictures and metrics take their time
                    keeper.tick(done)
            number, due = distributed.largest(caught[0] if caught else 0, keeper.save_is_due())
            if number or due:
                keeper.save()
            if number and not done:
                return signal.Signals(number)
    return None


class Keeper:
    """Keeps the run folder: ticks, pictures, snapshots and the training state. The first rank writes them."""

    def __init__(
        self, config: Mapping[str, Any], folder: Path, run: RunState, report: Reporter, rig: CameraRig, dataset: Any,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.run, self.report = config, folder, run, report
        self.rig, self.dataset, self.device = rig, dataset, device
        self.samples = build(config["samples"], where="samples") if config.get("samples") else None
        self.first = distributed.rank() == 0
        self.saved_at = time.time()

    def begin(self) -> None:
        """Forget what an earlier start wrote without a state, and write the first pictures."""
        if not self.first:
            return
        with watchdog.unwatched():
            self._begin()

    def _begin(self) -> None:
        cut_back_to(self.folder, {})
        if self.samples is not None:
            count = self.samples.latents * self.samples.columns
            reals = [self.dataset.sample(item).image for item in range(min(count, len(self.dataset)))]
            images = torch.stack([torch.as_tensor(image) for image in reals]).float() / 127.5 - 1
            save_grid(images, self.folder / "reals.png", columns=self.samples.columns)
            self.write_samples()

    def label(self) -> str:
        """What files of this moment are called: thousands of images, with decimals where a tick may end within one."""
        nimg, config = self.run.nimg, self.config
        whole = config["tick"] >= 1 and float(config["kimg"]).is_integer()
        return f"{nimg // 1000:06d}" if whole else f"{nimg // 1000:06d}.{nimg % 1000:03d}"

    def write_samples(self) -> None:
        """fakes%06d.png: the latents of this run, at its averaged weights."""
        if self.samples is None:
            return
        nets = self.run.everything()
        trained = nets[self.samples.net].options_at(self.run.nimg)  # pyright: ignore
        pictures = self.samples(nets, self.rig, self.dataset, trained.still(), self.device)
        for name, images in pictures.items():
            part = {"image": "", "image_raw": "_raw"}.get(name, f"_{name}")
            shown = depth_picture(images) if name == "depth" else images
            save_grid(shown, self.folder / f"fakes{self.label()}{part}.png", columns=self.samples.columns)

    def tick(self, done: bool) -> None:
        """The line, and pictures and a snapshot when they are due. All ranks call it."""
        run, statistics = self.run, self.run.collector.collect()
        snapping = self._each("snap", done)
        self.report.tick(run.nimg, run.tick, statistics)
        if self.first and self._each("imgsnap", done):
            self.write_samples()
        if self.first and snapping:
            nets = run.everything()
            save_snapshot(self.folder / SNAPSHOTS / f"{self.label()}.safetensors", nets, self.config, run.nimg)
            self.measure(nets)
        run.tick, run.tick_nimg = run.tick + 1, run.nimg
        if snapping:
            self.save()

    def _each(self, key: str, done: bool) -> bool:
        """Whether this tick, or the end, is one of every so many."""
        return done or (self.run.tick > 0 and self.run.tick % self.config[key] == 0)

    def measure(self, nets: Mapping[str, Any]) -> None:
        """The chosen metrics of the net that the samples show; what they say is printed and kept."""
        if not self.config.get("metric") or self.samples is None:
            return
        G = nets[self.samples.net]
        options = G.options_at(self.run.nimg).still()
        measured = MeasuredGenerator(G=G, rig=self.rig, data=self.dataset, options=options, device=self.device)
        facts = {"nimg": self.run.nimg, "data": self.dataset.name, "seed": measured.seed}
        rows = list(measure(self.config["metric"], measured, facts))
        append_rows(self.folder / METRICS_FILE, rows, *FULL)
        for row in rows:
            print(f"{row['metric']}: " + "  ".join(f"{name} {value:.4g}" for name, value in row["results"].items()))

    def save_is_due(self) -> bool:
        return self.first and time.time() >= self.saved_at + self.config["save_every"] * 60

    def save(self) -> None:
        """The training state. All ranks call it."""
        self.run.save(self.folder, self.report.elapsed)
        self.saved_at = time.time()

    def say_goodbye(self) -> None:
        print(f"\nTrained for {self.run.nimg / 1000:g} thousand images. Everything is in {self.folder}")
        if self.samples is not None:
            nets = self.run.everything()
            film = ["--render-program=orbit"] if isinstance(nets[self.samples.net], SceneGenerator) else []
            words = ["--outdir=out", "--seeds=0-7", f"--network={self.folder}", *film]
            print(f"Render it: {shlex.join(['python', 'generate.py', *words])}")


@contextmanager
def caught_signals():
    """A list that receives the signals which ask the run to stop; the iteration under way is finished first."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught:  # the second time is meant
            raise KeyboardInterrupt
        caught.append(number)
        if distributed.rank() == 0:  # print() must not be called where a print may be under way
            os.write(2, f"{signal.Signals(number).name}: the update under way is finished first\n".encode())

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare_device(config: Mapping[str, Any]) -> torch.device:
    """The device to train on, with the arithmetic the configuration asks for."""
    device = choose_device(distributed.link(config["device"]))
    native.choose(config["ops"], device)
    torch.use_deterministic_algorithms(bool(config["deterministic"]), warn_only=False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(config["allow_tf32"])
    torch.backends.cudnn.benchmark = not config["nobench"] and not config["deterministic"]
    if config["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Where memory runs out inside, of a GPU or of the machine, TrainingStopped says so."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or NO_MEMORY in str(error):
            raise out_of_memory(error) from error
        raise


def out_of_memory(error: Exception) -> TrainingStopped:
    """The three knobs, instead of an allocator's report."""
    what = (str(error).splitlines() or [type(error).__name__])[0].rpartition("DefaultCPUAllocator: ")[2]
    return TrainingStopped(
        f"out of memory: {what.rstrip('.')}. Lower batch_gpu (the update stays the same), the rays of an image (raw "
        "resolution or samples), or the channels (spec.channel_max)."
    )
