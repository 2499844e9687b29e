"""A whole EG3D with every kernel for GPUs, emulated: a picture, a score, and a gradient penalty's gradients."""

from contextlib import nullcontext

import torch

from tests.ops.emulated import emulated
from training.build import build_nets, build_rig
from training.cli.main import prepared
from training.cli.overrides import read
from training.contracts import Condition


def test_a_model_with_kernels_is_the_model_with_twins():
    config, _ = prepared(read(["model=eg3d", "spec=tiny"]).overrides)
    nets, camera = build_nets(config), build_rig(config).mean.expand(2)
    G, D, told, found = nets["G"], nets["D"], Condition(camera=camera), []
    z = torch.randn(2, G.z_dim)
    named = [*G.named_parameters(), *D.named_parameters()]
    for kernels in (False, True):
        for _, p in named:
            p.grad = None
            p.requires_grad_()
        with emulated() if kernels else nullcontext() as emulator:
            out = G.synthesis(G.mapping(z, told), camera, G.options_at(0).still())
            score = D(out, told).score
            (slope,) = torch.autograd.grad(score.sum(), out.image, create_graph=True)
            (score.sum() + slope.square().sum()).backward()
        slopes = {name: p.grad for name, p in named if p.grad is not None}
        found.append({"image": out.image, "depth": out.depth, "score": score, **slopes})
        if emulator:
            both = {f"{op}_{way}" for op in ("bias_act", "march") for way in ("forward", "backward")}
            assert set(emulator.launched) == {*both, "field_forward", "upfirdn2d"}
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        assert (found[1][name] - expected).norm() <= 3e-5 * expected.norm(), name
