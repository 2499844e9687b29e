"""Averages of weights and of what a network sees."""

import pytest
import torch
from torch import nn

from torch_utils.ema import RunningAverages, WeightAverage, commit_averages


class Watcher(RunningAverages):
    def __init__(self) -> None:
        super().__init__()
        self.register_average("w_avg", torch.zeros(3, dtype=torch.float64), beta=0.9)


def test_cutting_the_batch_does_not_change_the_average():
    rows = torch.randn(6, 3, dtype=torch.float64)
    whole, cut = Watcher(), Watcher()
    whole.collect("w_avg", rows)
    for k in range(3):
        cut.collect("w_avg", rows[k::3])
    commit_averages(whole)
    commit_averages(cut)
    torch.testing.assert_close(whole.w_avg, cut.w_avg, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.w_avg, 0.1 * rows.mean(dim=0))


def test_nothing_collected_changes_nothing():
    watcher = Watcher()
    watcher.w_avg.fill_(2.0)
    commit_averages(watcher)
    assert (watcher.w_avg == 2).all()


def test_sums_are_not_saved():
    assert list(Watcher().state_dict()) == ["w_avg"]


def test_half_of_the_weight_is_forgotten_in_one_half_life():
    net, slow = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    nn.init.ones_(slow.weight)
    rule = WeightAverage(kimg=1)
    for step in range(10):
        rule.update(slow, net, nimg=100 * step, batch=100, steps=step)
    assert slow.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_rampup_starts_with_a_copy():
    net, slow = nn.Linear(4, 4), nn.Linear(4, 4)
    WeightAverage(kimg=5, rampup=0.05).update(slow, net, nimg=0, batch=16, steps=0)
    assert torch.equal(slow.weight, net.weight)


def test_per_step_decay_warms_up():
    rule = WeightAverage(per_step=0.999)
    assert rule.beta(0, 8, 0) == pytest.approx(0.1)
    assert rule.beta(8 * 100_000, 8, 100_000) == 0.999
