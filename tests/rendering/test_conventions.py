"""Other people's camera conventions."""

import math

import torch

from training.rendering.conventions import eg3d_angles, eg3d_intrinsics, eg3d_pose

FRONT = torch.tensor([math.pi / 2])


def test_eg3ds_middle_angles_are_the_front_view():
    yaw, pitch = eg3d_angles(FRONT, FRONT)
    torch.testing.assert_close(torch.cat([yaw, pitch]), torch.zeros(2), atol=1e-6, rtol=0)
    pose = eg3d_pose(FRONT, FRONT, torch.tensor([2.7]), torch.zeros(1, 3))
    torch.testing.assert_close(pose[0, :3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])), atol=1e-6, rtol=0)


def test_a_larger_h_moves_to_x_and_a_larger_v_moves_down():
    yaw, pitch = eg3d_angles(FRONT + 0.1, FRONT + 0.1)
    torch.testing.assert_close(yaw, torch.tensor([0.1]))
    torch.testing.assert_close(pitch, torch.tensor([-math.asin(0.2 / math.pi)]))


def test_v_counts_area_on_the_sphere():
    """The height of the camera is linear in v: equal steps cut zones of equal area (Archimedes)."""
    v = torch.linspace(0.1, 3.0, 20, dtype=torch.float64)
    height = eg3d_pose(v * 0 + 1.0, v, v * 0 + 1.0, torch.zeros(20, 3, dtype=torch.float64))[:, 1, 3]
    torch.testing.assert_close(height, 1 - 2 * v / math.pi)


def test_eg3ds_field_of_view_of_its_faces():
    torch.testing.assert_close(
        eg3d_intrinsics(torch.tensor([18.837]))[0, 0, 0], torch.tensor(4.2634), atol=2e-4, rtol=0
    )
