"""Facts about the one camera."""

import math

import pytest
import torch

from torch_utils.draws import Draws
from training.rendering.cameras import Camera, CameraRig, look_at

RIG = CameraRig(radius=2.7, focal=4.26)


def test_the_front_view_looks_along_minus_z_with_y_down():
    pose = RIG.at(0.0).cam2world[0]
    expected = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    expected[2, 3] = 2.7
    torch.testing.assert_close(pose, expected)


def test_positive_yaw_moves_to_x_and_positive_pitch_up():
    assert RIG.at(0.3).position[0, 0] > 0
    assert RIG.at(0.0, 0.3).position[0, 1] > 0


def test_angles_are_what_at_was_given():
    yaw, pitch = torch.tensor([-3.0, -0.5, 0.0, 2.0]), torch.tensor([-1.2, 0.1, 0.0, 1.5])
    seen_yaw, seen_pitch = RIG.at(yaw, pitch).angles()
    torch.testing.assert_close(seen_yaw, yaw)
    torch.testing.assert_close(seen_pitch, pitch)


def test_rotations_are_proper_and_look_at_the_pivot():
    rig = CameraRig(radius=2.0, focal=1.0, pivot=(0.1, -0.2, 0.3))
    camera = rig.at(torch.linspace(-3, 3, 7), torch.linspace(-1.4, 1.4, 7), torch.linspace(-1, 1, 7))
    rotation = camera.cam2world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(7, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(7))
    towards = torch.nn.functional.normalize(torch.tensor(rig.pivot) - camera.position, dim=1)
    torch.testing.assert_close(camera.forward, towards, atol=1e-6, rtol=0)


def test_roll_turns_the_image_but_not_the_view():
    straight, rolled = RIG.at(0.2, 0.1), RIG.at(0.2, 0.1, math.pi / 2)
    torch.testing.assert_close(rolled.forward, straight.forward)
    torch.testing.assert_close(rolled.cam2world[:, :3, 0], straight.cam2world[:, :3, 1], atol=1e-6, rtol=0)


def project(camera: Camera, point: torch.Tensor) -> torch.Tensor:
    local = camera.cam2world[0, :3, :3].T @ (point - camera.position[0])
    image = camera.intrinsics[0] @ (local / local[2])
    return image[:2]


def test_a_mirrored_camera_sees_the_mirrored_point_mirrored():
    camera = RIG.at(0.4, 0.2, 0.1)
    camera.intrinsics[0, 0, 2] = 0.45
    point = torch.tensor([0.1, -0.05, 0.2])
    here, there = project(camera, point), project(camera.mirrored(), point * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(there, torch.stack([1 - here[0], here[1]]))
    torch.testing.assert_close(camera.mirrored().mirrored().label(), camera.label())


def test_the_label_of_25_numbers_goes_both_ways():
    camera = RIG.at(torch.tensor([0.1, 0.2]))
    assert torch.equal(Camera.from_label(camera.label()).label(), camera.label())
    assert camera.label().shape == (2, 25)


@pytest.mark.parametrize(("kind", "spread"), [("gaussian", 0.3), ("uniform", 0.3 / math.sqrt(3))])
def test_sampled_yaws_have_the_rig_s_spread(kind, spread):
    rig = CameraRig(radius=2.7, focal=4.26, kind=kind, yaw_mean=0.2)
    yaw, _ = rig.sample(Draws(seed=0, items=range(4000), batch=4000)).angles()
    assert yaw.mean().item() == pytest.approx(0.2, abs=0.02)
    assert yaw.std().item() == pytest.approx(spread, abs=0.01)


def test_the_sphere_is_covered_evenly():
    rig = CameraRig(radius=1.0, focal=1.0, kind="sphere")
    position = rig.sample(Draws(seed=0, items=range(4000), batch=4000)).position
    torch.testing.assert_close(position.mean(dim=0), torch.zeros(3), atol=0.03, rtol=0)
    torch.testing.assert_close(position.square().mean(dim=0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_look_at_puts_the_target_in_the_middle():
    pose = look_at(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.0, -1.0]]))
    target = torch.linalg.inv(pose)[0] @ torch.tensor([0.5, 0.0, -1.0, 1.0])
    torch.testing.assert_close(target[:2], torch.zeros(2), atol=1e-6, rtol=0)
    assert target[2] > 0
