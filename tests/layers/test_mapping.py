"""The mapping network: conditions, repetition, and the mean that follows batches."""

import pytest
import torch

from torch_utils.ema import commit_averages
from training.layers.mapping import MappingNetwork


def test_every_layer_gets_the_same_style():
    ws = MappingNetwork(z_dim=8, c_dim=0, w_dim=16, num_ws=5, num_layers=2)(torch.randn(3, 8))
    assert ws.shape == (3, 5, 16)
    assert torch.equal(ws, ws[:, :1].expand(-1, 5, -1))


def test_only_the_direction_of_latent_and_condition_counts():
    mapping = MappingNetwork(z_dim=8, c_dim=3, w_dim=16, num_layers=2)
    z, c = torch.randn(4, 8), torch.randn(4, 3)
    assert torch.allclose(mapping(z, c), mapping(z * 7, c * 0.5), atol=1e-6)
    assert not torch.allclose(mapping(z, c), mapping(z, -c), atol=1e-3)


def test_a_condition_alone_can_be_mapped():
    mapping = MappingNetwork(z_dim=0, c_dim=3, w_dim=16, w_avg_beta=None)
    assert mapping(None, torch.randn(4, 3)).shape == (4, 16)
    assert not hasattr(mapping, "w_avg")


def test_widths_are_free():
    mapping = MappingNetwork(z_dim=8, c_dim=3, w_dim=16, num_layers=3, embed_features=5, layer_features=7)
    assert [mapping.get_submodule(f"fc{i}").weight.shape for i in range(3)] == [(7, 13), (7, 7), (16, 7)]
    assert mapping(torch.randn(2, 8), torch.randn(2, 3)).shape == (2, 16)


def test_the_mean_follows_batches_however_they_are_cut():
    whole, cut = (MappingNetwork(z_dim=8, c_dim=0, w_dim=16, num_layers=1, w_avg_beta=0.75) for _ in range(2))
    cut.load_state_dict(whole.state_dict())
    z = torch.randn(6, 8)
    w = whole(z, update_emas=True)
    assert torch.equal(whole.w_avg, torch.zeros(16))  # not before the batch is whole
    for part in (z[:1], z[1:]):
        cut(part, update_emas=True)
    for mapping in (whole, cut):
        commit_averages(mapping)
    assert torch.allclose(whole.w_avg, 0.25 * w.mean(dim=0), atol=1e-6)
    assert torch.allclose(whole.w_avg, cut.w_avg, atol=1e-6)


def test_mapping_alone_does_not_move_the_mean():
    mapping = MappingNetwork(z_dim=8, c_dim=0, w_dim=16, num_layers=1)
    mapping.train()(torch.randn(4, 8))
    commit_averages(mapping)
    assert torch.equal(mapping.w_avg, torch.zeros(16))


def test_a_missing_condition_or_latent_of_the_wrong_length_is_an_error():
    mapping = MappingNetwork(z_dim=8, c_dim=3, w_dim=16)
    with pytest.raises(ValueError, match="conditions of 3"):
        mapping(torch.randn(2, 8))
    with pytest.raises(ValueError, match="latents of 8"):
        mapping(torch.randn(2, 7), torch.randn(2, 3))
