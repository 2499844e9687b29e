"""Grey pictures: StyleGAN2 learns them as they are, what needs colours says so before anything is written."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generate
from tests.trainer import run
from training import loop
from training.cli import main

SMALL = ["model=stylegan2", "batch=4", "batch_gpu=4", "kimg=0.008", "workers=0", "spec.channel_max=8",
         "model.sizes.tiny.z_dim=8", "model.sizes.tiny.w_dim=8", "samples.latents=2"]  # fmt: skip


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.RandomState(i).randint(256, size=(16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_stylegan2_is_trained_measured_and_shown_in_grey(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    metric = ["metrics=frechet_probe2k", "metric.frechet_probe2k.num_images=4"]
    assert main([*SMALL, *metric, f"data={grey}", f"outdir={tmp_path}/my runs"], loop.train) == 0
    (folder,) = (tmp_path / "my runs").iterdir()
    modes = {path.name: Image.open(path).mode for path in folder.glob("*.png")}
    assert len(modes) >= 3
    assert set(modes.values()) == {"L"}
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert row["results"]["frechet_probe2k"] > 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Render it: ")]
    python, *words = shlex.split(told.removeprefix("Render it: "))
    monkeypatch.setattr("sys.argv", [*words, "--device=cpu", f"--outdir={tmp_path}/out"])
    generate.main()  # what a run proposes in the end works, whatever its folder is called
    assert python == "python"
    shown = np.asarray(Image.open(tmp_path / "out" / "seed0007.png"))
    assert shown.shape == (16, 16, 3)
    assert (shown == shown[:, :, :1]).all()


def test_what_needs_colours_refuses_grey(grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    code, trainer = run(f"data={grey}", "model=eg3d", outdir=tmp_path / "out")
    assert (code, trainer.calls) == (2, [])
    assert "model=eg3d makes pictures in colours" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
