"""apps/doctor.py: what it says on machines that have everything, and nothing; that it sees what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apps import doctor
from dnnlib.errors import ConfigError
from tests.ops.emulated import emulated
from torch_utils.ops import bias_act, builds, cubins, native
from torch_utils.ops.builds import Unavailable

APP = Path(doctor.__file__)
OPERATORS = ["bias_act", "upfirdn2d", "conv3x3", "triplane_field", "weighted_sum", "ray_march"]


def consult(*words: str, **environment: str) -> subprocess.CompletedProcess:
    known = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, APP, *words], capture_output=True, text=True, env=known)


@pytest.fixture
def small(monkeypatch):
    """Cases of few pixels."""
    monkeypatch.setattr(doctor, "SIDE", 8)
    yield
    native.choose("auto")


def test_it_is_one_screen_wherever_it_is_called(tmp_path):
    found = consult(PARALLAX_CACHE=str(tmp_path / "own"))
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 160
    assert f"torch       {torch.__version__}" in found.stdout
    assert [line.split()[0] for line in lines if " cpu " in line and "devices" not in line] == OPERATORS
    assert f"{tmp_path / 'own'}, " in found.stdout


def test_help_is_one_screen_without_torch():
    found = consult("--help")
    assert found.returncode == 0
    assert "--arch" in found.stdout
    assert len(found.stdout.splitlines()) < 24


@pytest.mark.parametrize("words", [["--arch=90"], ["--arch="], ["--arck=sm_90"], ["rubbish"]])
def test_a_mistake_gets_one_sentence(words):
    found = consult(*words)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: ")


def test_a_machine_without_compilers_or_home_is_described(small, monkeypatch, capsys):
    def nothing(*_):
        raise Unavailable("there is none")

    def homeless():
        raise RuntimeError("no home folder")

    for module, name in (
        (native, "compiler"), (native, "library"), (cubins, "nvrtc"), (cubins, "nvcc"), (cubins, "ninja")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, nothing)
    monkeypatch.setattr(builds, "cache_folder", homeless)
    native.why_not.cache_clear()
    cubins.compiler.cache_clear()
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    try:
        doctor.main()
    finally:
        native.why_not.cache_clear()
    said = capsys.readouterr().out
    for name in ("C compiler", "NVRTC", "nvcc", "ninja"):
        assert f"{name:<12}none (there is none)" in said
    assert "cache       none (no home folder)" in said
    assert "torch's own: there is none" in said


def test_what_is_ours_is_timed_and_compared(small, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "why_not_ours", lambda name, device: None if name in cubins.USUAL else "it is not")
    with emulated():
        chosen = []
        monkeypatch.setattr(native, "choose", chosen.append)
        assert doctor.examined(torch.device("cpu"))
    assert chosen == ["torch", "auto", "torch", "auto", "torch", "torch", "auto", "torch", "torch", "auto"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == OPERATORS
    assert sum(line.endswith("compiled") for line in lines) == 4
    assert sum(line.endswith("torch's own: it is not") for line in lines) == 2


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_an_operator_that_computes_something_else_is_found(factor, small, monkeypatch, capsys):
    real, asked = bias_act.bias_act_twin, []

    def now_and_then(*arguments):
        asked.append(native._choice)
        y = real(*arguments)
        return y * factor if native._choice == "auto" else y

    monkeypatch.setattr(bias_act, "bias_act_twin", now_and_then)
    monkeypatch.setattr(doctor, "why_not_ours", lambda name, device: None if name == "bias_act" else "it is not")
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit) as caught:
        doctor.main()
    assert caught.value.code == 1
    assert set(asked) == {"torch", "auto"}
    assert "WRONG: use ops=torch" in capsys.readouterr().out


def test_texts_can_be_compiled_for_gpus_that_are_not_here(tmp_path, monkeypatch, capsys):
    def made(texts, arch, maker):
        if maker == "ninja":
            raise Unavailable("there is no nvcc")
        path = tmp_path / "x"
        path.write_bytes(bytes(5000))
        return [path] * len(texts)

    monkeypatch.setattr(cubins, "cubins", made)
    monkeypatch.setattr(cubins, "compiler", lambda maker: "NVRTC 13.2")
    monkeypatch.setattr(sys, "argv", ["doctor.py", "--arch=sm_80, sm_90"])
    doctor.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" in ")[0] for line in lines] == [
        "sm_80, NVRTC 13.2: bias_act upfirdn2d triplane_field ray_march, 20 kB", "sm_80, ops=ninja: there is no nvcc",
        "sm_90, NVRTC 13.2: bias_act upfirdn2d triplane_field ray_march, 20 kB", "sm_90, ops=ninja: there is no nvcc",
    ]  # fmt: skip


def test_a_list_of_gpus_is_read_as_one():
    assert doctor.architectures("sm_80,sm_90") == ["sm_80", "sm_90"]
    with pytest.raises((ConfigError, Exception), match="no GPU architecture"):
        doctor.architectures("hopper")
