"""Facts about samples along rays."""

import pytest
import torch

from training.rendering.sampling import importance, invert_pdf, smooth_weights, stratified

F64 = torch.float64


def test_the_middles_of_cells():
    found = stratified(torch.tensor(1.0), torch.tensor(3.0), torch.full((4,), 0.5))
    torch.testing.assert_close(found, torch.tensor([1.25, 1.75, 2.25, 2.75]))


def test_every_cell_holds_one_sample_and_nodes_reach_one_bin_beyond():
    near, far, offsets = torch.rand(5, 7), torch.rand(5, 7) + 2, torch.rand(5, 7, 9)
    share = (stratified(near, far, offsets) - near[..., None]) / (far - near)[..., None]
    assert torch.equal((share * 9).floor(), torch.arange(9.0).expand(5, 7, 9))
    share = (stratified(near, far, offsets, "nodes") - near[..., None]) / (far - near)[..., None]
    assert torch.equal((share * 8).floor(), torch.arange(9.0).expand(5, 7, 9))


def test_disparity_samples_are_even_in_inverse_depth():
    found = stratified(torch.tensor(0.5), torch.tensor(8.0), torch.zeros(6), "nodes", "disparity")
    torch.testing.assert_close(1 / found, torch.linspace(2.0, 0.125, 6))


def test_smoothed_weights():
    found = smooth_weights(torch.tensor([0.0, 0.0, 1.0, 0.0]), floor=0.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0, 0.5]))


def test_the_quantile_of_two_intervals():
    found = invert_pdf(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5]))
    torch.testing.assert_close(found, torch.tensor([4 / 3]), atol=1e-5, rtol=0)


def test_importance_samples_follow_a_known_density():
    """p(z) = 2 z on [0, 1] has the quantile function sqrt(u)."""
    edges = torch.linspace(0, 1, 2001, dtype=F64).expand(3, -1)
    weights = edges[:, 1:] ** 2 - edges[:, :-1] ** 2
    shares = torch.rand(3, 500, dtype=F64)
    found = invert_pdf(weights * torch.tensor([[1.0], [5.0], [0.1]], dtype=F64) * 1e6, edges, shares)
    torch.testing.assert_close(found, shares.sqrt(), atol=2e-4, rtol=0)


def test_the_share_of_weight_before_a_sample_is_its_quantile():
    weights = torch.rand(4, 10, dtype=F64) + 0.01
    edges = torch.rand(4, 11, dtype=F64).cumsum(dim=-1)
    shares = torch.rand(4, 50, dtype=F64)
    found = invert_pdf(weights, edges, shares)
    pdf = (weights + 1e-5) / (weights + 1e-5).sum(dim=-1, keepdim=True)
    inside = (found[..., None] - edges[:, None, :-1]) / (edges[:, 1:] - edges[:, :-1])[:, None]
    torch.testing.assert_close((inside.clamp(0, 1) * pdf[:, None]).sum(dim=-1), shares, atol=1e-12, rtol=0)


def test_only_the_full_reach_finds_matter_at_the_far_end():
    depths = torch.linspace(2, 3, 12)
    weights, shares = torch.zeros(11), (torch.arange(200) + 0.5) / 200
    weights[-1] = 1.0
    assert (importance(weights, depths, shares) > depths[-2]).float().mean() > 0.5
    assert importance(weights, depths, shares, "legacy").max() <= (depths[-3] + depths[-2]) / 2


def test_no_gradient_flows_to_the_coarse_pass():
    weights, depths = torch.rand(3, 7, requires_grad=True), torch.rand(3, 8, requires_grad=True)
    assert not importance(weights, depths.cumsum(dim=-1), torch.rand(3, 5)).requires_grad


def test_too_few_samples_for_the_legacy_rule():
    with pytest.raises(ValueError, match="at least 4"):
        importance(torch.rand(2), torch.arange(3.0), torch.rand(4), "legacy")
