"""From a configuration to a run's objects."""

import pytest
import torch

from tests.tiny import TINY
from training.cli.main import prepared
from training.setup import build_run


def test_lazy_regularisation_corrects_the_optimisers_as_eg3d_does():
    """A phase every k iterations makes k + 1 steps in k: lr and betas get k / (k + 1)."""
    config, _ = prepared([*TINY, "subset=100", "spec.glr=0.0025", "spec.dlr=0.002"])
    run, phases = build_run(config, torch.device("cpu"), None)
    assert {phase.name: phase.every for phase in phases} == {"Gmain": 1, "Greg": 4, "Dmain": 1, "Dreg": 16}
    (g,), (d,) = run.optimizers["G"].param_groups, run.optimizers["D"].param_groups
    assert (g["lr"], d["lr"]) == (pytest.approx(0.0025 * 4 / 5), pytest.approx(0.002 * 16 / 17))
    assert g["betas"] == (0, pytest.approx(0.99 ** (4 / 5)))
    assert d["betas"] == (0, pytest.approx(0.99 ** (16 / 17)))


def test_without_the_regulariser_g_keeps_its_learning_rate():
    config, _ = prepared([*TINY, "subset=100", "phases.Greg=null", "spec.glr=0.0025"])
    run, _ = build_run(config, torch.device("cpu"), None)
    assert run.optimizers["G"].param_groups[0]["lr"] == 0.0025
