"""What the documents show is true: their code runs, their toy model trains."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import generate
from dnnlib.rundir import run_name
from tests.trainer import config_of
from training.contracts import (
    Batch,
    Camera,
    CameraRig,
    Condition,
    DiscriminatorOutput,
    GeneratorOutput,
    RenderOptions,
    SceneGenerator,
)  # fmt: skip
from training.losses.adversarial import DiscriminatorFake, DiscriminatorReal, GeneratorLogistic
from training.losses.critic import ImageCritic
from training.losses.draws import LatentAndLabel
from training.losses.r1 import R1Penalty
from training.phases import Phase, PhaseRunner

ROOT = Path(__file__).parent.parent
RIG = CameraRig(radius=2.7, focal=4.26)


def toy_model() -> type:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "contracts.md").read_text(), re.DOTALL)
    assert len(code.split("class FoggyBall")[1].splitlines()) <= 40
    names = {"__name__": "toy"}
    exec(compile(code, "docs/contracts.md", "exec"), names)
    return names["FoggyBall"]  # type: ignore[return-value]


def test_the_toy_is_added_by_two_files(tmp_path: Path):
    for name in ("run_train.py", "generate.py", "configs", "dnnlib", "metrics", "torch_utils", "training"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    text = (ROOT / "docs" / "contracts.md").read_text()
    for kind, name in (("python", "training/generators/foggy_ball.py"), ("yaml", "configs/model/foggy_ball.yaml")):
        (code,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
        (tmp_path / name).write_text(code)
    small = ["resolution=16", "spec.channel_max=8", "batch=8", "kimg=0.016", "workers=0", "outdir=out"]
    for words in (["run_train.py", "model=foggy_ball", *small], ["generate.py", "--network=out", "--seeds=0"]):
        outdir = ["--outdir=pictures"] if words[0] == "generate.py" else []
        done = subprocess.run([sys.executable, *words, *outdir], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "pictures").rglob("*.png"))


class Judge(nn.Module):
    """The smallest discriminator."""

    sees = ("image",)

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Softplus(), nn.Flatten(), nn.Linear(128, 1))

    def forward(self, output: GeneratorOutput, told: Condition, draws=None) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=self.net(output.image).squeeze(1))


def test_the_help_of_generate_names_the_run_of_the_first_command():
    config = config_of()
    name = run_name(config["choices"]["model"], config["data"], config["gpus"], config["batch"], config["gamma"])
    assert f" --network=output/00000-{name}\n" in generate.EXAMPLES


def red_balls(count: int) -> Batch:
    camera = RIG.at(torch.linspace(-0.5, 0.5, count))
    truth = toy_model()()
    with torch.no_grad():
        truth.tint.weight.zero_()
        truth.tint.bias.copy_(torch.tensor([1.0, -1.0, -1.0]))
        codes = truth.mapping(torch.zeros(count, 4), Condition())
        image = truth.synthesis(codes, camera, truth.options_at(0)).image
    return Batch(image=image, condition=Condition(camera=camera))


def test_the_toy_model_trains_by_the_four_phases_of_a_gan():
    torch.manual_seed(0)
    nets = {"G": toy_model()(), "D": Judge()}
    assert isinstance(nets["G"], SceneGenerator)
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=0.03) for name, net in nets.items()}
    draw, critics = LatentAndLabel(z_dim=4), {"D": ImageCritic(net="D")}
    losses = {
        "Gmain": ("G", {"adversarial": GeneratorLogistic()}),
        "Dmain": ("D", {"fake": DiscriminatorFake(), "real": DiscriminatorReal()}),
        "Dreg": ("D", {"r1": R1Penalty(1.0)}),
    }
    phases = [
        Phase(name=name, nets=(net,), optimizer=net, terms=terms, draw=draw, critics=critics)
        for name, (net, terms) in losses.items()
    ]
    runner = PhaseRunner(nets, optimizers, seed=0, batch_gpu=4, clips={})
    before = {name: [p.clone() for p in net.parameters()] for name, net in nets.items()}
    reported: dict[str, list[float]] = {}
    for step in range(2):
        for phase in phases:
            runner.run(
                phase, red_balls(8), 8 * step, lambda name, t: reported.setdefault(name, []).append(t.mean().item())
            )
    assert {"loss/Gmain/adversarial", "loss/Dmain/real", "loss/Dreg/r1", "score/real", "r1"} <= set(reported)
    for name, net in nets.items():
        assert any(not torch.equal(old, new) for old, new in zip(before[name], net.parameters(), strict=True))


def test_the_toy_ball_is_round_from_everywhere():
    ball = toy_model()()
    codes = ball.mapping(torch.ones(1, 4), Condition())
    images = [
        ball.synthesis(codes, RIG.at(yaw, pitch), RenderOptions()).image for yaw, pitch in ((0.0, 0.0), (2.0, 0.7))
    ]
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=0)
    assert isinstance(RIG.at(0.0), Camera)
