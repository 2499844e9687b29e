"""Options with dashes, as other repositories have them, are answered with a line that works here."""

import re
import shlex
from pathlib import Path

import pytest

from dnnlib.errors import ConfigError
from training.cli import overrides
from training.cli.compose import composed
from training.cli.keys import HINTS, groups

ROOT = Path(__file__).parent.parent
STYLEGAN = """--outdir=o --gpus=1 --snap=50 --metrics=fid50k_full --metrics=none --metrics=turning,probe2k --seed=0
    --data=/a/b.zip --cond=1 --subset=9 --mirror=1 --cfg=auto --gamma=1 --kimg=9 --batch=8 --batch-gpu=4 --aug=ada
    --p=0.2 --target=0.6 --augpipe=bgc --resume=noresume --resume=ffhq256 --freezed=4 --fp32=1 --nhwc=0 --nobench=on
    --allow-tf32=yes --workers=3 --cbase=32768 --cmax=512 --glr=0.002 --dlr=0.002 --map-depth=8 --mbstd-group=4
    --desc=it's --tick=4"""
EG3D = """--neural_rendering_resolution_initial=64 --neural_rendering_resolution_final=128 --blur_fade_kimg=200
    --neural_rendering_resolution_fade_kimg=1000 --gen_pose_cond=1 --c-scale=1 --c-noise=0 --gpc_reg_prob=0.8
    --gpc_reg_fade_kimg=1000 --disc_c_noise=0 --sr_noise_mode=none --resume_blur=1 --sr_num_fp16_res=4
    --g_num_fp16_res=0 --d_num_fp16_res=4 --style_mixing_prob=0 --density_reg=0.25 --density_reg_every=4
    --density_reg_p_dist=0.004 --reg_type=l1 --decoder_lr_mul=1 --sr_module=x --cfg=shapenet"""
CONFIGURATIONS = [f"--cfg={name}" for name in (*overrides.ADA_PRESETS, "ffhq", "afhq", "shapenet")]
SWITCHES = [" ".join(f"--{key}={value}" for key in overrides.SWITCHES) for value in ("1", "no", "True")]


def answer(*line: str) -> tuple[str, list[str]]:
    """What the error says before the line that it suggests, and that line's words."""
    with pytest.raises(ConfigError) as caught:
        overrides.read(line)
    said, _, words = str(caught.value).partition("keys are written without dashes here: python run_train.py")
    return said, shlex.split(words)


@pytest.mark.parametrize("line", [STYLEGAN, EG3D, *CONFIGURATIONS, *SWITCHES, "-n --cond"])
def test_what_is_suggested_composes(line: str):
    words = answer(*line.split())[1]
    composed(overrides.read(words).overrides)


@pytest.mark.parametrize("option", [*STYLEGAN.split(), *EG3D.split(), *CONFIGURATIONS, "--dry-run", "--cfg=", "--foo"])
def test_an_option_is_respelt_or_said_not_to_be_here(option: str):
    said, words = answer(option)
    assert said == ("" if words else f"{option}: not here (--help lists what is); ")


def test_nvidias_options_are_respelt():
    line = "--outdir=out --cfg=ffhq --data=/a.zip --gpus 8 --batch=32 --gamma=1 --mbstd-group=4 --gen_pose_cond=1 -n"
    assert answer(*line.split()) == ("", [
        "outdir=out", "model=eg3d_ffhq", "data=/a.zip", "gpus=8", "batch=32", "gamma=1", "spec.mbstd_group=4",
        "model.pose_conditioning=True", "dry_run=True",
    ])  # fmt: skip
    assert answer("--cfg=paper256", "--data", "/a b.zip", "--cond", "--mirror=0") == (
        "", ["model=stylegan2", "spec=paper256", "data=/a b.zip", "cond=True", "mirror=False"],
    )  # fmt: skip


def test_what_is_written_right_stays():
    line = ["~phases.Greg", "data=/it's.zip", "seed=1,2", "--multirun", "--gpus=8"]
    assert answer(*line) == ("", ["--multirun", "~phases.Greg", "data=/it's.zip", "seed=1,2", "gpus=8"])


def test_a_model_that_is_not_here_is_not_suggested():
    assert answer("--cfg=stylegan3-r", "--gpus=8", "--sr-first-cutoff", "2") == (
        "--cfg=stylegan3-r, --sr-first-cutoff 2: not here (--help lists what is); ", ["gpus=8"],
    )  # fmt: skip


def rows() -> list[tuple[str, str]]:
    """The rows of docs/coming-from.md that say what becomes of options of a training."""
    text = (ROOT / "docs" / "coming-from.md").read_text()
    cells = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("|")]
    return [(there, here) for there, here in cells if re.search(r"`(python train\.py )?--", there)]


@pytest.mark.parametrize(("there", "here"), rows())
def test_what_the_documents_say_is_what_is_suggested(there: str, here: str):
    suggested = set()
    for command in re.findall(r"`(?:python train\.py )?(--[^`]+)`", there):
        words = answer(*command.replace("=N", "=1000").split())[1]
        composed(overrides.read(words).overrides)
        suggested |= set(words)
    known = {*HINTS, *groups()}
    told = re.findall(r"(?<![\w.-])([\w.]+)=(\w[\w.-]*)", here.partition(" (pose")[0].replace("=N", "=1000"))
    told = {f"{key}={value}" for key, value in told if key in known or "." in key} - {"gpus=8"}  # of torchrun
    assert told - {"resume_run=FOLDER", "resume_run=latest"} <= suggested


def test_there_are_such_rows():
    assert len(rows()) >= 8
