"""Turning, reprojection, identity and labels on scenes whose answers are known."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dnnlib.errors import ConfigError
from metrics import reprojection
from metrics.identity import Identity, agreement
from metrics.labels import ClassAccuracy, Confusion, LabelAgreement
from metrics.pictures import Measured, Pictures
from metrics.probe import ProbeOutput
from metrics.reprojection import Reprojection, visible, warp
from metrics.turning import PoseError, Turning, correlation_and_slope, degrees_apart
from training.data.critters import RIGS, Critters

YAWS = (-0.1745, 0.1745)


@dataclass
class Heads(Measured):
    """Critters seen by metrics as if a generator had made them. depth changes what it says about its shape."""

    critters: Critters
    depth: float | None = None  # None: the truth

    def views(self, seeds, yaws):
        shown = []
        for yaw in yaws:
            view = self.critters.view(list(seeds), RIGS["face"].at(yaw))
            told = view.depth if self.depth is None else torch.full_like(view.depth, self.depth)
            shown.append(Pictures(image=view.image, camera=view.camera, depth=told))
        yield tuple(shown)


@pytest.fixture(scope="module")
def critters() -> Critters:
    return Critters(seed=1, size=100, resolution=64)


def test_true_depth_carries_one_view_into_the_other(critters: Critters):
    found = Reprojection(8, YAWS)(Heads(critters))
    assert found["reprojection"] < 0.3 * found["reprojection_unmoved"]
    assert found["reprojection"] < 0.5 * found["reprojection_constant_depth"]
    assert found["reprojection_coverage"] > 0.2


def test_constant_depth_is_no_better_than_itself(critters: Critters):
    found = Reprojection(4, YAWS)(Heads(critters, depth=2.7))
    assert found["reprojection"] == pytest.approx(found["reprojection_constant_depth"], abs=1e-6)


def test_warping_to_the_same_camera_changes_nothing(critters: Critters):
    view = critters.view([0, 1], RIGS["face"].at(0.2))
    moved, inside = warp(view.image, view.camera, view.camera, torch.full_like(view.depth, 2.5))
    torch.testing.assert_close(moved, view.image, atol=1e-3, rtol=0)
    assert inside.all()


def test_a_surface_sees_itself_and_hides_what_lies_behind(critters: Critters):
    view = critters.view([0], RIGS["face"].at(0.0))
    ground = view.depth > 0
    assert torch.equal(visible(view.camera, view.depth, view.camera, view.depth, 0.01), ground)
    assert not visible(view.camera, view.depth * 1.05, view.camera, view.depth, 0.01).any()


def test_pictures_without_depth_are_refused_in_one_sentence():
    class Flat(Measured):
        def views(self, seeds, yaws):
            yield tuple(Pictures(image=torch.zeros(1, 3, 8, 8)) for _ in yaws)

    with pytest.raises(ConfigError, match="metric=reprojection needs depth"):
        Reprojection(1, YAWS)(Flat())


class Oracle(nn.Module):
    """Reads what a test painted: pixel (0, 0) holds yaw, (0, 1) pitch, (0, 2) class or identity."""

    def forward(self, image: torch.Tensor) -> ProbeOutput:
        yaw, pitch, kind = image[:, 0, 0, 0], image[:, 0, 0, 1], image[:, 0, 0, 2]
        direction = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=1)
        one_hot = nn.functional.one_hot(kind.long(), 4).float()
        labels = nn.functional.one_hot(image[:, 1].long(), 2).movedim(3, 1).float()
        return ProbeOutput(direction, one_hot, labels, one_hot, torch.zeros(len(image), 6))


def painted(yaw: torch.Tensor, kind: torch.Tensor, pitch: float = 0.0) -> torch.Tensor:
    image = torch.zeros(len(yaw), 3, 4, 4)
    image[:, 0, 0, 0], image[:, 0, 0, 1], image[:, 0, 0, 2] = yaw, pitch, kind
    return image


@dataclass
class Turned(Measured):
    """Scene s shows kind s % 4, turned by slope * yaw plus a constant of its own."""

    slope: float
    scatter: float = 0.0

    def views(self, seeds, yaws):
        own = self.scatter * torch.randn(len(seeds), generator=torch.Generator().manual_seed(0))
        kind = torch.tensor(list(seeds)) % 4
        yield tuple(Pictures(image=painted(self.slope * yaw + own, kind)) for yaw in yaws)

    def fakes(self, n):
        cameras = RIGS["face"].at(torch.linspace(-0.5, 0.5, n), 0.1)
        label = nn.functional.one_hot(torch.arange(n) % 4, 4).float()
        seen = torch.arange(n) % 4
        seen[: n // 2] = (seen[: n // 2] + 1) % 4  # half of them show another class
        yield Pictures(image=painted(cameras.angles()[0] + 0.1, seen, pitch=0.1), camera=cameras, label=label,
                       label_map=torch.zeros(n, 1, 4, 4, dtype=torch.int64))  # fmt: skip


def test_turning_half_as_far_has_slope_one_half():
    found = Turning(Oracle(), 16, (-0.5, -0.25, 0, 0.25, 0.5))(Turned(slope=0.5))
    assert found == {"turning_correlation": pytest.approx(1, abs=1e-6), "turning_slope": pytest.approx(0.5, abs=1e-6)}


def test_a_picture_that_never_turns_has_neither_correlation_nor_slope():
    found = Turning(Oracle(), 16, (-0.5, 0.0, 0.5))(Turned(slope=0.0))
    assert found == {"turning_correlation": 0.0, "turning_slope": pytest.approx(0, abs=1e-9)}


def test_scattered_poses_lower_the_correlation_but_not_the_slope():
    # var(x) = 0.125 for these yaws; corr = sqrt(var / (var + scatter^2))
    found = Turning(Oracle(), 4000, (-0.5, -0.25, 0, 0.25, 0.5))(Turned(slope=1.0, scatter=0.25))
    assert found["turning_slope"] == pytest.approx(1, abs=1e-5)
    assert found["turning_correlation"] == pytest.approx(math.sqrt(0.125 / (0.125 + 0.0625)), abs=0.01)


def test_correlation_and_slope_of_a_line():
    x = torch.tensor([1.0, 2.0, 4.0])
    assert correlation_and_slope(x, 3 - 2 * x) == (pytest.approx(-1), pytest.approx(-2))


def test_angles_are_compared_on_the_circle():
    apart = degrees_apart(torch.tensor([math.pi - 0.1, 0.0]), torch.tensor([0.1 - math.pi, 0.5]))
    torch.testing.assert_close(apart, torch.rad2deg(torch.tensor([0.2, 0.5])))


def test_pose_error_is_in_degrees():
    found = PoseError(Oracle(), 8)(Turned(slope=1.0))
    assert found["yaw_error_degrees"] == pytest.approx(math.degrees(0.1), abs=1e-3)
    assert found["pitch_error_degrees"] == pytest.approx(0, abs=1e-3)


def test_class_accuracy_is_the_share_of_right_classes():
    assert ClassAccuracy(Oracle(), 8)(Turned(slope=1.0)) == {"class_accuracy": 0.5}


def test_label_agreement_of_equal_maps_is_one():
    assert LabelAgreement(Oracle(), 8)(Turned(slope=1.0)) == {"label_miou": 1.0}


def test_identity_of_four_recurring_heads():
    # 16 scenes of 4 kinds: of 240 pairs of strangers 48 look the same
    found = Identity(Oracle(), 16, YAWS)(Turned(slope=1.0))
    assert found["identity_same"] == 1
    assert found["identity_strangers"] == pytest.approx(48 / 240)


def test_agreement_finds_everyone_among_distinct_heads():
    basis = torch.eye(5)
    assert agreement(basis, basis) == {"identity_same": 1.0, "identity_strangers": 0.0, "identity_found": 1.0}
    assert agreement(basis, basis.roll(1, 0))["identity_found"] == 0


def test_intersection_over_union_by_hand():
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 2]])
    said = torch.tensor([[0, 0, 0, 1], [0, 0, 2, 2]])
    confusion = Confusion.of(said, truth, 4)  # label 3 occurs nowhere
    torch.testing.assert_close(confusion.iou[:3], torch.tensor([4 / 5, 1 / 2, 1.0]).double())
    assert confusion.mean_iou == pytest.approx((0.8 + 0.5 + 1) / 3)
    parts = Confusion.of(said[:1], truth[:1], 4) + Confusion.of(said[1:], truth[1:], 4)
    assert torch.equal(parts.counts, confusion.counts)


def test_enlarging_depth_invents_none_between_the_head_and_nothing():
    depth = torch.zeros(1, 1, 4, 4)
    depth[:, :, 1:3, 1:3] = 2.7
    larger = reprojection.enlarged(depth, (8, 8))
    assert set(larger.unique().tolist()) <= {0.0, depth[0, 0, 1, 1].item()}
    assert (larger > 0).any()
