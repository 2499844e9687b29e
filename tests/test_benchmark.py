"""What apps/benchmark.py says: the arithmetic by a clock that the work itself moves, the rest on small real models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from apps import benchmark
from dnnlib.errors import ConfigError
from tests.toy_sphere import BallGenerator, FlatGenerator
from torch_utils.ema import WeightAverage
from training import timing
from training.data.critters import Critters
from training.phases import Phase, PhaseRunner
from training.reporting import memory_gb
from training.state import RunState
from training.timing import WARM_UP, Job, Stopwatch, Timing

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
CONFIG = {
    "seed": 0, "batch": 4, "batch_gpu": 2, "workers": 0,
    "rig": {"_target_": "training.rendering.cameras.CameraRig", "radius": 2.7, "focal": 3.0},
}  # fmt: skip


class Clock:
    """Stands still unless somebody works."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class SlowData(Critters):
    """Every item takes a quarter of a second."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(resolution=8, size=16)
        self.clock = clock

    def sample(self, item: int):
        self.clock.time += 0.25
        return super().sample(item)


class SlowAverage(WeightAverage):
    def __init__(self, clock: Clock) -> None:
        super().__init__(kimg=1)
        self.clock, self.seen = clock, []

    def update(self, average: nn.Module, net: nn.Module, nimg: int, batch: int, steps: int) -> None:
        self.clock.time += 0.125
        self.seen.append((nimg, batch, steps))


class SlowRunner(PhaseRunner):
    """Phases that take what is written down for each of their runs."""

    def __init__(self, clock: Clock, costs: dict[str, list[float]]) -> None:
        self.clock, self.costs, self.seen = clock, {name: iter(c) for name, c in costs.items()}, []

    def run(self, phase, batch, nimg, report) -> None:
        self.seen.append((phase.name, nimg))
        self.clock.time += next(self.costs[phase.name])


class SlowBall(BallGenerator):
    """A scene takes 2 seconds, an image of it 1/2."""

    clock: Clock

    def scene(self, codes, options):
        self.clock.time += 2.0
        return super().scene(codes, options)

    def render(self, scene, camera, options):
        self.clock.time += 0.5 * len(camera)
        return super().render(scene, camera, options)


def job(clock: Clock, G: nn.Module | None = None, **phases: tuple[int, list[float]]) -> Job:
    """Phases: how often, and what each run of it takes. G is the slowest average of a generator of its class."""
    nets: dict[str, nn.Module] = {"D": nn.Linear(1, 1), **({"G": type(G)()} if G else {})}
    averages: dict[str, tuple[str, WeightAverage, nn.Module]] = {"D_ema": ("D", SlowAverage(clock), nets["D"])}
    emas = {"D_ema": {"net": "D", "kimg": 1}}
    if G:
        averages |= {"G_fast": ("G", SlowAverage(clock), type(G)()), "G_ema": ("G", SlowAverage(clock), G)}
        emas |= {"G_fast": {"net": "G", "kimg": 0.1}, "G_ema": {"net": "G", "kimg": 1}}
    runner = SlowRunner(clock, {name: costs for name, (_, costs) in phases.items()})
    run = RunState(nets=nets, averages=averages, optimizers={}, runner=runner, nimg=1000)
    made = [Phase(name=name, nets=("D",), optimizer="D", terms={}, every=every) for name, (every, _) in phases.items()]
    return Job(config={**CONFIG, "emas": emas}, dataset=SlowData(clock), device=CPU, phases=made, run=run)


def test_training_is_timed_by_phase_and_spread_over_the_iterations():
    clock, cold = Clock(), [100.0] * WARM_UP
    made = job(clock, main=(1, [*cold, 3.0, 1.0, 2.0]), reg=(16, [*cold, 8.0, 8.5, 9.0]))
    timings = timing.time_training(made, Stopwatch(CPU, clock), repeats=3)
    assert [(t.name, t.images, t.every, t.seconds) for t in timings] == [
        ("data", 4, 1, (1.0, 1.0, 1.0)),
        ("main", 4, 1, (3.0, 1.0, 2.0)),
        ("reg", 4, 16, (8.0, 8.5, 9.0)),
        ("averages", 4, 1, (0.125, 0.125, 0.125)),
    ]
    assert [t.per_kimg for t in timings] == [250.0, 500.0, 8.5 / 16 * 250, 31.25]
    runner, (_, average, _) = made.run.runner, made.run.averages["D_ema"]
    assert isinstance(runner, SlowRunner)
    assert runner.seen == [(name, 1000 + 4 * i) for i in range(WARM_UP + 3) for name in ("main", "reg")]
    assert isinstance(average, SlowAverage)
    assert average.seen == [(1000 + 4 * i, 4, i) for i in range(WARM_UP + 3)]


def test_a_scene_is_built_for_every_latent_and_once_for_its_views():
    SlowBall.clock = clock = Clock()
    ball = SlowBall()
    made = job(clock, ball)
    timings = timing.time_generation(made, Stopwatch(CPU, clock), repeats=3)
    assert [(t.name, t.images, t.seconds, t.rate) for t in timings] == [
        ("new latents, batch 1", 1, (2.5,) * 3, 0.4),
        ("new latents, batch 2", 2, (3.0,) * 3, 2 / 3),
        (timing.VIEWS, 1, (0.5,) * 3, 2.0),
    ]
    assert ball.scenes_built == 2 * (WARM_UP + 3) + 1  # the slowest average is timed, as generate.py shows it


def test_flat_generators_have_no_views_and_other_nets_make_no_images():
    class Flat(FlatGenerator, nn.Module):
        pass

    names = [t.name for t in timing.time_generation(job(Clock(), Flat()), Stopwatch(CPU), 1)]
    assert names == ["new latents, batch 1", "new latents, batch 2"]
    assert timing.time_generation(job(Clock()), Stopwatch(CPU), 1) == []


def test_the_clock_is_read_when_a_gpu_has_nothing_left_to_do(monkeypatch: pytest.MonkeyPatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    watch = Stopwatch(torch.device("cuda"), lambda: events.append("read") or float(len(events)))
    assert watch.time(lambda: events.append("work")) == (None, 3.0)
    assert events == ["wait", "read", "work", "wait", "read"]


def test_peak_memory_remembers_what_was_freed():
    held = torch.ones(2**26)
    resident = memory_gb(CPU)
    del held
    assert resident > 0.25
    assert timing.peak_memory_gb(CPU) > resident - 0.01


def test_the_commit_says_whether_the_source_differs_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    git = tmp_path / "git"
    git.write_text('#!/bin/sh\ncase "$3" in rev-parse) echo 0123abcd;; status) printf "$CHANGES";; esac\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHANGES", "")
    assert timing.commit() == "0123abcd"
    monkeypatch.setenv("CHANGES", " M loop.py\n?? new.py\n")
    assert timing.commit() == "0123abcd (dirty)"
    git.write_text("#!/bin/sh\nexit 128\n")
    assert timing.commit() == "unknown"
    git.unlink()
    assert timing.commit() == "unknown"


def call(monkeypatch: pytest.MonkeyPatch, *line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["apps/benchmark.py", *line])
    benchmark.main()


SMALL = ("device=cpu", "resolution=16", "subset=32", "batch=4", "spec.channel_max=16", "--repeats=2", "--threads=1")


def test_a_scene_model_is_measured_whole(monkeypatch, capsys, tmp_path: Path):
    file = tmp_path / "a b.json"
    call(monkeypatch, "model=eg3d", "workers=1", f"--json={file}", *SMALL, "phases.Dreg.every=3")
    found = json.loads(file.read_text())
    assert [(part["what"], part["every"]) for part in found["training"]] == [
        ("data", 1), ("Gmain", 1), ("Greg", 4), ("Dmain", 1), ("Dreg", 3), ("averages", 1)
    ]  # fmt: skip
    assert found["s_per_kimg"] == pytest.approx(
        sum(sum(part["seconds"]) / 2 / part["every"] / 4 * 1000 for part in found["training"])
    )
    assert [entry["what"] for entry in found["generation"]] == [
        "new latents, batch 1", "new latents, batch 4", "further views of one scene"
    ]  # fmt: skip
    for entry in found["generation"]:
        assert entry["images_per_s"] == pytest.approx(entry["images"] / (sum(entry["seconds"]) / 2))
    assert all(len(e["seconds"]) == 2 and min(e["seconds"]) > 0 for e in found["training"] + found["generation"])
    assert (found["threads"], found["torch"], found["nimg"], found["resolution"]) == (1, torch.__version__, 60000, 16)
    assert set(found["parameters"]) == {"G", "D"}
    assert f"'--json={file}'" in found["command"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == found["command"]
    assert found["commit"] in said[2]
    assert found["machine"] in said[2]
    assert next(line for line in said if line.startswith("training together")).split()[-1] == benchmark.number(
        found["s_per_kimg"]
    )


def test_a_flat_model_says_so_in_a_table_for_a_page(monkeypatch, capsys):
    call(monkeypatch, "model=stylegan2", "workers=0", "--markdown", "--nimg=0", *SMALL)
    said = capsys.readouterr().out
    assert "flat images, so there are no further views" in said
    assert "further views of one scene" not in said
    assert "at 0 images" in said
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {7}
    names = [line.split("|")[1].strip() for line in table[2:]]
    assert names == [
        "new latents, batch 1", "new latents, batch 4", "data", "Gmain", "Dmain", "Dreg, every 16 iterations",
        "averages", "training together", "without waiting for data", "peak memory", "parameters of G",
        "parameters of D",
    ]  # fmt: skip


def test_a_rate_falls_as_its_seconds_rise():
    found = {"generation": [{"what": "x", "images": 6, "seconds": [1.0, 2.0, 3.0]}], "training": [], "s_per_kimg": 0.0,
             "peak_memory_gb": 1.0, "parameters": {}}  # fmt: skip
    assert next(benchmark.rows(found)) == ("x", "3", "2", "6", "images/s", "")
    assert Timing("x", 6, (1.0, 2.0, 3.0)).rate == 3.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["gama=1"], "there is no key gama; did you mean gamma?"),
        (["model=eg3"], "there is no such model; did you mean eg3d"),
        (["--repeat=3"], "there is no option --repeat; did you mean --repeats"),
        (["--repeats=0"], "'0' is not a whole number of at least 1"),
        (["eg3d"], "eg3d belongs to no option"),
        (["dry_run=True"], "dry_run=True has no place here"),
        (["--json=/nowhere/x.json"], "its folder does not exist"),
    ],
)
def test_mistakes_are_told_in_one_sentence(monkeypatch, line: list[str], message: str):
    with pytest.raises(ConfigError) as told:
        call(monkeypatch, "device=cpu", *line)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['benchmark.py', '--help']\n"
        "try: import runpy; runpy.run_path('apps/benchmark.py', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, sorted({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "--repeats N" in done.stdout
