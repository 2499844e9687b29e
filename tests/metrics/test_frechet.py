"""Moments and Fréchet distances against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib.errors import ConfigError
from metrics.fid import Frechet, frechet_distance
from metrics.pictures import Measured, Pictures
from metrics.stats import Moments


def gaussian(mean: list[float], covariance: list[list[float]]) -> Moments:
    """Moments of a population with this mean and covariance."""
    return Moments(1000, torch.tensor(mean).double(), 1000 * torch.tensor(covariance).double())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_moments_of_parts_merge_into_those_of_the_whole(sizes: list[int], seed: int):
    rows = torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(seed)) + 100
    merged = Moments.over(rows.split(sizes))
    assert merged.count == len(rows)
    torch.testing.assert_close(merged.mean, rows.double().mean(dim=0))
    torch.testing.assert_close(merged.covariance, torch.cov(rows.double().T, correction=0))


def test_moments_do_not_care_which_part_comes_first():
    a, b = Moments.of(torch.randn(7, 3)), Moments.of(torch.randn(5, 3) + 2)
    torch.testing.assert_close((a + b).scatter, (b + a).scatter)


def test_moments_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        Moments.over([])


def test_distance_of_gaussians_on_a_line():
    # (m1 - m2)^2 + (s1 - s2)^2
    assert frechet_distance(gaussian([1.0], [[4.0]]), gaussian([4.0], [[25.0]])) == pytest.approx(9 + 9, abs=1e-12)


def test_distance_of_gaussians_with_common_axes_adds_up_over_the_axes():
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    covariances = [(turn * torch.tensor(s).double().square()) @ turn.T for s in ([1.0, 2.0, 3.0], [2.0, 0.5, 3.0])]
    a, b = (gaussian([0.0, 0.0, 0.0], c.tolist()) for c in covariances)
    assert frechet_distance(a, b) == pytest.approx(1 + 1.5**2, abs=1e-6)


def test_distance_of_gaussians_in_the_plane_by_the_trace_of_a_two_by_two_root():
    # for 2x2 matrices tr(M^1/2) = sqrt(tr M + 2 sqrt(det M)); here M = S1 S2
    one, two = [[2.0, 1.0], [1.0, 3.0]], [[5.0, -1.0], [-1.0, 1.0]]
    product = torch.tensor(one) @ torch.tensor(two)
    root = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    assert frechet_distance(gaussian([0, 0], one), gaussian([3, 4], two)) == pytest.approx(
        25 + 5 + 6 - 2 * root, abs=1e-5
    )


def test_distance_is_zero_from_itself_and_symmetric_even_for_flat_clouds():
    flat = Moments.of(torch.randn(5, 8))  # 5 points span 4 of 8 dimensions
    other = Moments.of(torch.randn(6, 8))
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(flat, other) == pytest.approx(frechet_distance(other, flat), abs=1e-6)


class Still(Measured):
    """Reals as given, fakes brighter; in batches of other sizes."""

    def __init__(self, n: int) -> None:
        self.image = torch.rand(n, 3, 4, 4)

    def reals(self, n: int):
        yield from (Pictures(image=part) for part in self.image[:n].split(5))

    def fakes(self, n: int):
        yield from (Pictures(image=part + 0.5) for part in self.image[:n].split(3))


def test_distance_of_pictures_is_that_of_their_features_under_the_metrics_name():
    # the mean colour is the feature: shifting every picture by d moves it by d in each channel
    metric = Frechet("frechet_mean", lambda batch: batch.mean(dim=(2, 3)), num_images=12)
    assert metric(Still(12)) == {"frechet_mean": pytest.approx(3 * 0.25, abs=1e-5)}


def test_one_picture_is_no_distribution():
    metric = Frechet("frechet_mean", lambda batch: batch.mean(dim=(2, 3)), num_images=1)
    with pytest.raises(ConfigError, match=r"frechet_mean .* at least 2"):
        metric(Still(1))
