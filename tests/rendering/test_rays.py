"""Facts about rays and boxes."""

import pytest
import torch

from training.rendering.cameras import Camera, CameraRig
from training.rendering.rays import batch_misses, box_range, camera_rays, empty_misses, image_rays, pixel_centres

RIG = CameraRig(radius=2.7, focal=4.26, pivot=(0.0, 0.0, 0.2))


def crooked_camera() -> Camera:
    """Two cameras with unequal focal lengths, skew, roll and an off-centre principal point."""
    camera = RIG.at(torch.tensor([0.4, -2.0]), torch.tensor([0.2, -0.7]), torch.tensor([0.3, 0.0]))
    camera.intrinsics[1] = torch.tensor([[1.3, 0.2, 0.45], [0.0, 1.1, 0.6], [0.0, 0.0, 1.0]])
    return camera


def test_pixels_run_row_by_row_from_the_top_left():
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    torch.testing.assert_close(pixel_centres(2), torch.tensor(expected))


def test_points_of_a_ray_project_to_its_pixel():
    camera = crooked_camera()
    rays = image_rays(camera, 5)
    points = rays.at(torch.full((2, 25, 1), 1.7)).squeeze(2)
    local = (points - camera.position[:, None]) @ camera.cam2world[:, :3, :3]
    image = local @ camera.intrinsics.mT
    torch.testing.assert_close(image[..., :2] / image[..., 2:], pixel_centres(5).expand(2, 25, 2), atol=1e-5, rtol=0)
    assert (local[..., 2] > 0).all()


def test_depth_is_distance_along_a_unit_ray():
    rays = image_rays(crooked_camera(), 4)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(2, 16))
    depths = torch.rand(2, 16, 3) + 1
    away = (rays.at(depths) - rays.origins[:, :, None]).norm(dim=-1)
    torch.testing.assert_close(away, depths)


def test_the_middle_ray_looks_where_the_camera_does():
    camera = RIG.at(0.3, -0.4)
    torch.testing.assert_close(image_rays(camera, 3).directions[:, 4], camera.forward, atol=1e-6, rtol=0)


def test_a_patch_has_the_rays_of_that_part_of_the_image():
    camera = crooked_camera()
    whole = image_rays(camera, 8).directions.view(2, 8, 8, 3)
    patch = image_rays(camera, 4, torch.tensor([[0.5, 0.25, 0.5, 0.5]])).directions.view(2, 4, 4, 3)
    torch.testing.assert_close(patch, whole[:, 2:6, 4:])


def test_rays_have_gradients_to_the_camera():
    camera = crooked_camera()
    camera = Camera(camera.cam2world.double().requires_grad_(), camera.intrinsics.double().requires_grad_())
    pixels = torch.rand(1, 3, 2, dtype=torch.float64)

    def rays(pose, intrinsics):
        found = camera_rays(Camera(pose, intrinsics), pixels)
        return found.origins, found.directions

    assert torch.autograd.gradcheck(rays, (camera.cam2world, camera.intrinsics))


def test_the_box_is_entered_and_left_at_its_faces():
    near, far = box_range(torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, -1.0]), 1.0)
    assert (near.item(), far.item()) == (1.5, 2.5)
    origins = torch.randn(500, 3, dtype=torch.float64) * 2
    directions = torch.nn.functional.normalize(torch.randn(500, 3, dtype=torch.float64), dim=-1)
    near, far = box_range(origins, directions, 1.6)
    hit = near < far
    assert 50 < hit.sum() < 450
    for end in (near, far):
        corner = (origins + end[:, None] * directions)[hit].abs().amax(dim=1)
        torch.testing.assert_close(corner, torch.full_like(corner, 0.8))
    along = torch.linspace(-8, 8, 400, dtype=torch.float64)
    points = origins[~hit, None] + along[:, None] * directions[~hit, None]
    assert (points.abs().amax(dim=-1) > 0.8).all()


def test_a_ray_within_a_face_hits_and_one_beside_it_misses():
    directions = torch.tensor([0.0, 0.0, 1.0]).expand(2, 3)
    near, far = box_range(torch.tensor([[0.5, 0.0, -2.0], [0.51, 0.0, -2.0]]), directions, 1.0)
    assert (near[0].item(), far[0].item()) == (1.5, 2.5)
    assert near[1] > far[1]


def test_rays_that_miss_get_an_empty_range_and_nothing_lies_behind_the_camera():
    origins = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    near, far = empty_misses(*box_range(origins, directions, 1.0))
    assert near[:2].tolist() == [1.5, 0.0]
    assert far[:2].tolist() == [2.5, 0.5]
    assert torch.equal(near[2:], far[2:])
    assert (near >= 0).all()
    assert near.isfinite().all()


def test_eg3ds_rule_fills_misses_with_near_values_of_the_batch():
    near, far = torch.tensor([2.0, 1.0, 5.0]), torch.tensor([4.0, 3.0, 1.0])
    filled = batch_misses(near, far)
    assert filled[0].tolist() == [2.0, 1.0, 1.0]
    assert filled[1].tolist() == [4.0, 3.0, 2.0]
    none = batch_misses(near[2:], far[2:])
    assert (none[0].item(), none[1].item()) == (-1.0, -2.0)


@pytest.mark.parametrize("side", [0.5, 3.0])
def test_a_frontal_camera_sees_the_box_at_its_distance(side):
    rays = image_rays(CameraRig(radius=4.0, focal=100.0).at(0.0), 1)
    near, far = box_range(rays.origins, rays.directions, side)
    torch.testing.assert_close(torch.stack([near, far]).flatten(), torch.tensor([4 - side / 2, 4 + side / 2]))
