"""What spoils the probe's pictures, and what it is asked about them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dnnlib.errors import ConfigError
from metrics.probe import Probe, ProbeOutput
from torch_utils.record import cat
from training.contracts import Batch, CameraRig, Draws, Inputs
from training.data.critters import RIGS, Critters
from training.data.loader import batches
from training.losses.probe import Dirt, ProbeLoss, gaussian_blur
from training.step import Step

CLEAN = Dirt(background=0, tint=0, stains=0, blur=0, noise=0, coarse=0)
ITEMS = 6


def draws() -> Draws:
    return Draws(seed=1, phase="Pmain", items=range(ITEMS), batch=ITEMS)


def loss(dirt: Dirt, **weights: float) -> ProbeLoss:
    return ProbeLoss(rigs=[RIGS["face"], CameraRig(radius=2.7, focal=4.2647, yaw_mean=2.0)], dirt=dirt,
                     label_weights=[1.0] * 7, **weights)  # fmt: skip


@pytest.fixture(scope="module")
def batch() -> Batch:
    data = Critters(resolution=32, size=20, cond=True, maps="labels")
    return next(batches(data, batch=ITEMS))


def step(batch: Batch, net: nn.Module) -> Step:
    return Step(nets={"P": net}, batch=batch, inputs=Inputs(), draws=draws(), nimg=0, critics={})


class Knowing(nn.Module):
    """Answers with the truth of the lessons it was given."""

    def __init__(self, lesson) -> None:
        super().__init__()
        self.lesson = lesson

    def forward(self, image: torch.Tensor) -> ProbeOutput:
        one = self.lesson
        return ProbeOutput(
            direction=one.direction,
            class_logits=50 * nn.functional.one_hot(one.kind, 3).float(),
            label_logits=50 * nn.functional.one_hot(one.label_map[:, 0], 7).movedim(3, 1).float(),
            embedding=torch.eye(len(image) // 2).repeat(2, 1),
            damage=one.damage,
        )


def test_no_strength_no_damage(batch: Batch):
    image, damage = CLEAN(batch.image, batch.condition.label_map, draws())
    torch.testing.assert_close(image, batch.image, atol=1e-6, rtol=0)
    assert damage.shape == (ITEMS, 6)


def test_backgrounds_change_and_heads_stay(batch: Batch):
    image, _ = replace(CLEAN, background=1)(batch.image, batch.condition.label_map, draws())
    head = (batch.condition.label_map > 0).expand_as(image)
    torch.testing.assert_close(image[head], batch.image[head], atol=1e-6, rtol=0)
    corners = image[:, :, 0, 0]
    assert (corners - batch.image[:, :, 0, 0]).abs().amin() > 1e-3


def test_noise_is_as_strong_as_it_says(batch: Batch):
    grey = torch.zeros(ITEMS, 3, 64, 64)
    image, damage = replace(CLEAN, noise=0.1)(grey, torch.ones(ITEMS, 1, 64, 64, dtype=torch.int64), draws())
    torch.testing.assert_close(image.std(dim=(1, 2, 3)), 0.1 * damage[:, 4], rtol=0.05, atol=0)


def test_blur_spreads_a_point_to_its_standard_deviation():
    point = torch.zeros(3, 1, 41, 41)
    point[:, :, 20, 20] = 1
    sigma = torch.tensor([1.0, 2.0, 3.0])
    blurred = gaussian_blur(point, sigma, reach=14)
    row = blurred.sum(dim=(1, 2))
    variance = (row * (torch.arange(41) - 20.0) ** 2).sum(dim=1)
    torch.testing.assert_close(row.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(variance, sigma**2, rtol=0.01, atol=0)


def test_a_probe_that_knows_everything_loses_nothing(batch: Batch):
    term = loss(Dirt(), temperature=0.02)
    value = term(step(batch, Knowing(cat(term.lessons(batch, draws())))))
    assert value.shape == (ITEMS,)
    torch.testing.assert_close(
        value, torch.full((ITEMS,), 0.005), atol=1e-3, rtol=0
    )  # the chord's rounding: 5 sqrt(1e-6)


def test_second_views_show_the_same_heads_from_elsewhere(batch: Batch):
    first, second = loss(CLEAN).lessons(batch, draws())
    assert torch.equal(first.kind, second.kind)
    assert ((first.direction - second.direction).norm(dim=1) > 0.01).all()
    yaw = torch.atan2(second.direction[:, 0], second.direction[:, 2]).abs()
    assert (yaw > 1.2).any()  # of the second rig
    assert (yaw < 1.0).any()  # of the first


def test_mirrored_lessons_have_mirrored_directions(batch: Batch):
    first, _ = loss(CLEAN).lessons(batch, draws())
    truth = nn.functional.normalize(batch.condition.camera.position, dim=1)
    across = torch.tensor([-1.0, 1, 1])
    for image, direction, own, toward in zip(first.image, first.direction, batch.image, truth, strict=True):
        flipped = (image - own).abs().amax() > 1e-4
        torch.testing.assert_close(image, own.flip(2) if flipped else own, atol=1e-5, rtol=0)
        torch.testing.assert_close(direction, toward * across if flipped else toward)


def test_every_weight_of_the_probe_learns(batch: Batch):
    net = Probe(channels=(4, 4, 4, 4, 4), summary=8, embedding=4)
    loss(Dirt())(step(batch, net)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_data_without_label_maps_are_refused(batch: Batch):
    blind = replace(batch, condition=replace(batch.condition, label_map=None))
    with pytest.raises(ConfigError, match="cond=True labels=labels"):
        loss(Dirt())(step(blind, Probe()))
