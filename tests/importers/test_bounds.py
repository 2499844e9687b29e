"""The rules of comparison, and the command that applies them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from apps.check_parity import main, read
from training.importers.bounds import compare, replayed_names

ROOT = Path(__file__).parent.parent.parent
FIXTURE = ROOT / "tests" / "parity" / "stylegan2_core_bias_act.safetensors"


def passes(name: str, theirs: float | list, error: float, **metadata: str) -> bool:
    reference = torch.tensor(theirs, dtype=torch.float64)
    return compare(name, reference + error, reference, metadata).passed


@pytest.mark.parametrize(
    ("name", "theirs", "bound"),
    [
        ("out/image", [[3.0, 100.0]], 1e-4),
        ("out/sigma", [[0.5, 0.1]], 1e-4),
        ("out/sigma", [[500.0, 500.0]], 5e-2),
        ("out/points_rgb_sigma", [[20.0, 20.0]], 2e-3),
        ("out/blurred_sigma2", [[20.0, 20.0]], 1e-4),
        ("out/loss_total", 50.0, 5e-3),
        ("out/r1", [50.0, 50.0], 5e-3),
        ("out/Dreg/Loss/r1_penalty", [50.0, 50.0], 5e-3),
        ("out/input_grads", [[0.0, 2.0]], 2e-3),
        ("out/d_fake_img", [[0.0, 2.0]], 2e-3),
        ("out/r1_grad_img", [[0.0, 2.0]], 2e-3),
        ("grad/b4.conv.weight", [[0.0, 7.0]], 7e-3),
        ("grad_r1/b4.conv.weight", [[0.0, 0.0]], 1e-8),
    ],
)
def test_bounds(name: str, theirs, bound: float):
    assert passes(name, theirs, 0.99 * bound)
    assert not passes(name, theirs, 1.01 * bound)


def test_operators_are_held_to_more():
    kind = "stylegan2_core_upfirdn2d"
    assert not passes("out/00/y", [[1.0, 1.0]], 2e-5, kind=kind)
    assert passes("out/00/y", [[1.0, 1.0]], 2e-5)
    assert passes("out/00/dx", [[10.0, 1.0]], 9e-3, kind=kind)


def test_where_the_reference_moves_itself_five_times_that_is_allowed():
    conditioning = json.dumps({"outputs": {"fg_depths": 1e-3}, "grad_rel": 1e-2})
    assert passes("out/fg_depths", [[1.0, 1.0]], 4.9e-3, conditioning=conditioning)
    assert not passes("out/fg_weights", [[1.0, 1.0]], 4.9e-3, conditioning=conditioning)
    assert passes("grad/a", [[1.0, 1.0]], 4.9e-2, conditioning=conditioning)


def test_whole_numbers_shapes_and_finite_values_must_be_equal():
    row = torch.tensor([1, 2, 3], dtype=torch.int32)
    assert compare("out/sample_row", row, row, {}).passed
    assert not compare("out/sample_row", row + 1, row, {}).passed
    ones = torch.ones(1, 2)
    assert "shape" in compare("out/x", torch.ones(2), ones, {}).note
    assert not compare("out/x", torch.tensor([[1.0, torch.nan]]), ones, {}).passed
    assert compare("out/x", None, ones, {}).note == "not replayed"


def test_only_results_are_to_be_replayed():
    names = ["state/a", "in/x", "in/probe/y", "out/y", "grad/a", "grad_r1/a", "shape/b"]
    assert replayed_names(dict.fromkeys(names, torch.zeros(1))) == ["out/y", "grad/a", "grad_r1/a"]


def test_the_command_tells_agreement_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metadata, tensors = read(FIXTURE)
    broken = tmp_path / "broken.safetensors"
    save_file(tensors | {"out/00/y": tensors["out/00/y"] + 1, "out/99/y": torch.zeros(1, 2)}, broken, metadata)
    assert main([str(FIXTURE)]) == 0
    assert "55 of 55 tensors agree" in capsys.readouterr().out
    assert main([str(broken), str(FIXTURE)]) == 1
    printed = capsys.readouterr().out
    assert "54 of 56 tensors agree" in printed
    assert "55 of 55 tensors agree" in printed
    assert "failed: out/00/y" in printed
    assert "not replayed" in printed


def test_a_kind_without_importer_agrees_in_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "later.safetensors"
    save_file({"out/image": torch.zeros(1, 2)}, path, {"kind": "model_to_come"})
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "no importer for the kind 'model_to_come'" in printed
    assert "0 of 1 tensors agree" in printed


def test_the_command_says_in_a_sentence_what_it_cannot_read(tmp_path: Path):
    other, bare = tmp_path / "other.safetensors", tmp_path / "bare.safetensors"
    other.write_text("not a fixture")
    save_file({"out/y": torch.zeros(1)}, bare)
    files = [str(path) for path in (tmp_path / "none.safetensors", other, bare, tmp_path)]
    command = [sys.executable, str(ROOT / "apps" / "check_parity.py"), *files]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 4
    for said in ("There is no file", "cannot be read", "have no kind"):
        assert said in result.stderr
