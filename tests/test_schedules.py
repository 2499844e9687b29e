"""Ramps."""

import pytest

from training.schedules import ramp


def test_a_ramp_runs_straight_from_start_to_end():
    assert [ramp(nimg, 2, 1.0, 0.5) for nimg in (0, 1000, 2000, 9000)] == pytest.approx([1.0, 0.75, 0.5, 0.5])


def test_no_time_to_ramp_is_the_end():
    assert ramp(0, 0, 10.0, 3.0) == 3.0
