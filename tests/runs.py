"""Trainings in processes of their own, and what they leave, for tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tiny import TINY

ROOT = Path(__file__).parent.parent
RUN = [
    *TINY, "aug=ada", "augment.kimg=0.05", "batch_gpu=4", "kimg=0.16", "tick=0.032", "snap=2", "imgsnap=100",
    "samples.latents=1", "save_every=1e-9",
]  # fmt: skip


def start(*words: str) -> subprocess.Popen:
    return launch("run_train.py", *words)


def launch(*command: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONUNBUFFERED", None)  # a pipe must see every line without it
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def iterations(folder: Path) -> int:
    state = folder / "state.pt"
    return torch.load(state, weights_only=True)["counters"]["iteration"] if state.exists() else -1


def wait_for(folder: Path, process: subprocess.Popen, iteration: int) -> None:
    while process.poll() is None and iterations(folder) < iteration:
        time.sleep(0.02)


def begun(outdir: Path, *words: str) -> tuple[subprocess.Popen, Path]:
    """A run that has taken three steps, and its folder."""
    process = start(*words, f"outdir={outdir}")
    while not list(outdir.glob("0*")):
        time.sleep(0.02)
    (folder,) = outdir.glob("0*")
    wait_for(folder, process, 3)
    return process, folder


def left_alone(outdir: Path, *words: str) -> Path:
    """The folder of a run that came to its end."""
    finish(start(*words, f"outdir={outdir}"))
    (folder,) = outdir.iterdir()
    return folder


def logged(folder: Path) -> list[dict]:
    """stats.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    for line in lines:
        del line["time"]
    return lines


def assert_same(one: object, other: object, where: str = "state") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where  # type: ignore[arg-type]
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where  # type: ignore[attr-defined]
        for key in one:
            if key not in ("elapsed", "lengths"):
                assert_same(one[key], other[key], f"{where}.{key}")  # type: ignore[index]
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where  # type: ignore[arg-type]
        for i, (a, b) in enumerate(zip(one, other, strict=True)):  # type: ignore[call-overload]
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def assert_same_run(folder: Path, whole: Path) -> None:
    states = [torch.load(f / "state.pt", weights_only=True) for f in (folder, whole)]
    assert_same(*states)
    assert logged(folder) == logged(whole)
    names = [sorted(p.name for p in (f / "snapshots").iterdir()) for f in (folder, whole)]
    assert names[0] == names[1]
    for name in names[0]:
        assert_same(*[load_file(f / "snapshots" / name) for f in (folder, whole)], name)
