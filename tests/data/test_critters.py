"""Critters: the same item every time, exact geometry, heads that fit the frame, pictures that agree across views."""

import math

import pytest
import torch

from dnnlib.errors import DataError
from torch_utils.draws import Draws
from torch_utils.record import cat
from training.data.critters import CLASSES, LABELS, RIGS, Critters
from training.data.critters_render import LIGHT, directions, trace
from training.data.critters_shape import REACH, heads
from training.rendering.cameras import Camera, CameraRig, look_at, pinhole

RIG = RIGS["face"]


def ray_distance(head, camera, resolution):
    """Nearest root of |A (o + s d - c)| = 1 over unit rays and ellipsoids, in float64; inf where there is none."""
    d = torch.nn.functional.normalize(directions(camera, resolution)[0].double(), dim=-1)
    to_ball, centre = head.to_ball[0].double(), head.centre[0].double()
    q = torch.einsum("eij,hwj->hwei", to_ball, d)
    o = torch.einsum("eij,ej->ei", to_ball, camera.position[0].double() - centre)
    a, b, c = q.square().sum(-1), (q * o).sum(-1), o.square().sum(-1) - 1
    near = (-b - (b * b - a * c).sqrt()) / a
    return near.nan_to_num(math.inf).amin(-1)


def test_an_item_is_the_same_whatever_the_order_of_access():
    one, other = Critters(resolution=16, size=9), Critters(resolution=16, size=9)
    forward = [one.sample(i).image for i in range(9)]
    backward = [other.sample(i).image for i in reversed(range(9))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_an_item_is_the_same_alone_and_among_others():
    data = Critters(resolution=32, size=6)
    together = data.view(list(range(6)), data.camera(range(6)))
    alone = cat([data.view(i, Critters(size=6).camera([i])) for i in range(6)])
    assert torch.equal(together.image, alone.image)
    assert torch.equal(together.depth, alone.depth)
    as_stored = torch.stack([data.sample(i).image for i in range(6)]).float() / 127.5 - 1
    assert torch.equal(together.image, as_stored)


def test_an_item_is_the_same_on_any_number_of_threads():
    data = Critters(resolution=64, size=2, cache=False)
    single = data.sample(1).image
    torch.set_num_threads(2)
    assert torch.equal(data.sample(1).image, single)


def test_resolution_changes_sampling_and_nothing_else():
    fine, coarse = Critters(resolution=128, size=3), Critters(resolution=32, size=3)
    items = torch.arange(3)
    assert torch.equal(fine.conditions(items).camera.label(), coarse.conditions(items).camera.label())
    for item in range(3):
        shrunk = torch.nn.functional.avg_pool2d(fine.sample(item).image.float(), 4)
        assert (shrunk - coarse.sample(item).image).abs().mean() < 1.5  # grey levels, of antialiasing


def test_other_seeds_are_other_critters():
    first, second = Critters(resolution=16, size=4), Critters(resolution=16, size=4, seed=1)
    assert not any(torch.equal(first.sample(i).image, second.sample(i).image) for i in range(4))


def test_a_cached_image_is_the_image():
    kept, made = Critters(resolution=16, size=3, cache=True), Critters(resolution=16, size=3, cache=False)
    for _ in range(2):
        assert torch.equal(kept.sample(2).image, made.sample(2).image)


def test_a_remembered_camera_is_the_camera_drawn():
    data = Critters(size=9, mirror=True)
    data.camera([4, 13, 4, 0]).cam2world.zero_()  # what the caller does with it is not remembered
    drawn = RIG.sample(Draws(seed=0, phase="critters", items=[0, 5, 4, 4]))
    expected = cat([drawn[:3], drawn[3:].mirrored()]).label()
    for _ in range(2):  # known and new ones, then known ones
        assert torch.equal(data.conditions(torch.tensor([0, 5, 4, 13])).camera.label(), expected)
    with pytest.raises(IndexError):
        data.conditions(torch.tensor([-5]))


def test_depth_is_the_nearest_root_of_the_ellipsoids_along_unit_rays():
    for item in (0, 3, 4):  # one of each class
        camera = RIG.at(0.5, -0.3, 0.2)
        expected = ray_distance(data_head := heads(0, [item]), camera, 64)
        seen = Critters(size=9).view(item, camera, 64)
        assert torch.equal(seen.opacity[0, 0] > 0, expected < math.inf)
        hit = expected < math.inf
        torch.testing.assert_close(seen.depth[0, 0][hit].double(), expected[hit], atol=1e-5, rtol=0)
        assert (seen.depth[0, 0][~hit] == 0).all()
        assert data_head.kind.item() in range(len(CLASSES))


def test_depth_leads_to_the_surface():
    data, camera = Critters(size=3), RIG.at(torch.tensor([0.4, -0.8, 2.5]), torch.tensor([0.1, -0.5, 0.9]))
    seen = data.view([0, 1, 2], camera, 48)
    rays = torch.nn.functional.normalize(directions(camera, 48), dim=-1)
    points = camera.position[:, None, None] + seen.depth[:, 0, ..., None] * rays
    level = heads(0, range(3)).level(points.flatten(1, 2)).reshape(3, 48, 48)
    hit = seen.opacity[:, 0] > 0
    torch.testing.assert_close(level[hit], torch.ones_like(level[hit]), atol=2e-4, rtol=0)
    assert heads(0, range(3)).level(torch.zeros(3, 1, 3)).max() < 1  # the origin is inside


@pytest.mark.parametrize("camera", [RIG.at(1.2, 0.4), CameraRig(radius=0.5, focal=0.6).at(0.3, 0.1)])
def test_searching_silhouettes_boxes_misses_no_pixel(camera):
    head = heads(5, [2])
    t, _ = trace(head, camera, 96)
    assert torch.equal(t[0] < math.inf, ray_distance(head, camera, 96) < math.inf)


def test_a_camera_inside_the_bounding_box_still_sees_what_is_ahead():
    position = torch.tensor([[0.0, 0.0, 0.45]])
    camera = Camera(look_at(position, torch.tensor([[0.3, 0.0, 0.4]])), pinhole(0.3))  # parts are behind its plane
    head = heads(0, [0])
    t, _ = trace(head, camera, 64)
    expected = ray_distance(head, camera, 64)
    assert torch.equal(t[0] < math.inf, (expected > 0) & (expected < math.inf))


def test_oblique_lenses_are_honoured():
    intrinsics = torch.tensor([[[3.0, 0.4, 0.55], [0.0, 4.0, 0.4], [0.0, 0.0, 1.0]]])
    camera = Camera(RIG.at(0.2, 0.1).cam2world, intrinsics)
    seen = Critters(size=1).view(0, camera, 64)
    rows, columns = (seen.opacity[0, 0] > 0).nonzero(as_tuple=True)
    origin = intrinsics[0] @ torch.tensor([0.0, 0.0, 1.0])  # the subject's origin is straight ahead
    assert abs((columns.float().mean() + 0.5) / 64 - origin[0]) < 0.05
    assert abs((rows.float().mean() + 0.5) / 64 - origin[1]) < 0.05


@pytest.mark.parametrize("poses", ["face", "sphere"])
def test_heads_fit_the_frame(poses):
    n, data = 40, Critters(size=40, poses=poses)
    sides = torch.linspace(-0.9, 0.9, n)
    for camera in (RIG.at(sides, 0.3 * torch.cos(40 * sides)), data.camera(range(n)), RIG.at(3 * sides, 1.4 * sides)):
        opacity = (trace(heads(0, range(n)), camera, 64)[0] < math.inf).float()
        border = torch.cat([opacity[:, 0], opacity[:, -1], opacity[:, :, 0], opacity[:, :, -1]])
        assert border.max() == 0
        assert 0.15 < opacity.mean() < 0.6  # and fill it


def test_the_bounding_ball_is_inside_the_lens():
    directions = torch.nn.functional.normalize(torch.randn(1, 4000, 3), dim=-1)
    head = heads(3, range(20))
    assert head.level((directions * REACH * 1.01).expand(20, -1, -1)).min() > 1
    assert REACH * 1.01 / RIG.radius < math.sin(math.atan(0.5 / RIG.focal))


def test_a_mirrored_critter_is_the_flipped_picture():
    plain = Critters(resolution=32, size=4, maps="labels")
    doubled = Critters(resolution=32, size=4, maps="labels", mirror=True)
    assert len(doubled) == 2 * len(plain)
    for item in range(4):
        original, flipped = plain.sample(item), doubled.sample(item + 4)
        assert (original.image.flip(2).int() - flipped.image.int()).abs().max() <= 1
        assert torch.equal(original.label_map.flip(2), flipped.label_map)
        there = plain.conditions(torch.tensor([item])).camera.mirrored().label()
        assert torch.equal(doubled.conditions(torch.tensor([item + 4])).camera.label(), there)
        assert doubled.kind(item + 4) == plain.kind(item)


def test_two_views_of_a_head_agree_where_both_see_it():
    data, angle = Critters(size=6), math.radians(15)
    n, side = 6, 96
    first = data.view(list(range(n)), RIG.at(torch.zeros(n)), side)
    second = data.view(list(range(n)), RIG.at(torch.full((n,), angle)), side)
    rays = torch.nn.functional.normalize(directions(first.camera, side), dim=-1)
    points = (first.camera.position[:, None, None] + first.depth[:, 0, ..., None] * rays).flatten(1, 2)
    pose, lens = second.camera.cam2world, second.camera.intrinsics
    local = (points - second.camera.position[:, None]) @ pose[:, :3, :3]
    pixel = local @ lens.mT
    grid = (2 * pixel[..., :2] / pixel[..., 2:] - 1).reshape(n, side, side, 2)

    def there(values):
        return torch.nn.functional.grid_sample(values, grid, align_corners=False, mode="nearest")

    distance = points.sub(second.camera.position[:, None]).norm(dim=-1).reshape(n, 1, side, side)
    visible = (first.opacity > 0) & ((there(second.depth) - distance).abs() < 0.01)
    assert visible.float().sum() > 0.7 * first.opacity.sum()
    same_label = (there(second.label_map.float()) == first.label_map)[visible].float().mean()
    assert same_label > 0.95
    difference = (there(second.image) - first.image).abs().mean(1, keepdim=True)[visible].mean()
    unwarped = (second.image - first.image).abs().mean(1, keepdim=True)[visible].mean()
    assert difference < 0.05
    assert difference < unwarped / 2


def test_views_know_their_class_and_all_labels_occur():
    data = Critters(size=60, cond=True)
    seen = data.view(list(range(60)), RIG.at(torch.zeros(60)), 64)
    assert seen.label_map.unique().tolist() == list(range(len(LABELS)))
    assert torch.equal(data.conditions(torch.arange(60)).label, torch.nn.functional.one_hot(seen.kind, 3).float())
    assert torch.equal(seen.label_map > 0, seen.opacity > 0)
    counts = torch.bincount(seen.kind, minlength=3)
    assert counts.min() > 8


def test_edges_are_where_labels_change():
    seen = Critters(size=1).view(0, RIG.at(0.3), 64)
    changes = seen.label_map[..., 1:] != seen.label_map[..., :-1]
    assert seen.edges[..., :-1][changes].all()
    assert 0.02 < seen.edges.float().mean() < 0.25


def test_poses_follow_their_rigs():
    yaw, pitch = Critters(size=2000).camera(range(2000)).angles()
    assert yaw.std().item() == pytest.approx(0.3, rel=0.06)
    assert pitch.std().item() == pytest.approx(0.155, rel=0.06)
    around = Critters(size=2000, poses="sphere").camera(range(2000)).position / 2.7
    assert around.mean(0).abs().max() < 0.06
    assert around.square().mean(0).sub(1 / 3).abs().max() < 0.04


def test_pictures_are_colourful_and_well_exposed():
    data = Critters(size=100)
    images = (data.view(list(range(100)), data.camera(range(100)), 8).image + 1) / 2
    assert 0.35 < images.mean() < 0.6
    assert (images.mean((0, 2, 3)) - images.mean()).abs().max() < 0.06  # no colour cast
    assert images.mean((2, 3)).std(0).min() > 0.06  # identities differ
    assert ((images < 0.01) | (images > 0.99)).float().mean() < 0.05


@pytest.mark.parametrize("yaw", [-0.7, 0.0, 0.7])
def test_the_nose_shines_where_its_normal_halves_the_angle_between_eye_and_light(yaw):
    n, camera = 12, RIG.at(torch.full((12,), yaw), torch.full((12,), 0.2))
    head, seen = heads(0, range(n)), Critters(size=n).view(list(range(n)), camera, 192)
    brightness = seen.image.sum(1).masked_fill(seen.label_map[:, 0] != LABELS.index("nose"), -9).flatten(1)
    rows, brightest = torch.arange(n), brightness.argmax(1)
    rays = torch.nn.functional.normalize(directions(camera, 192), dim=-1).flatten(1, 2)[rows, brightest]
    point = camera.position + seen.depth.flatten(1)[rows, brightest, None] * rays
    nose = (head.label == LABELS.index("nose")).int().argmax(1)
    to_ball = head.to_ball[rows, nose]
    form = to_ball.mT @ to_ball
    normal = torch.nn.functional.normalize((form @ (point - head.centre[rows, nose])[..., None])[..., 0], dim=-1)
    half = torch.nn.functional.normalize(torch.tensor(LIGHT) - rays, dim=-1)
    assert (normal * half).sum(-1).arccos().median() < 0.15


def test_the_background_is_one_colour():
    seen = Critters(size=1).view(0, RIG.at(torch.tensor([0.0, 2.0])), 64)
    empty = torch.nn.functional.max_pool2d(seen.opacity, 3, 1, 1).expand_as(seen.image) == 0
    colours = seen.image.movedim(1, 3)[empty.movedim(1, 3)].reshape(-1, 3)
    assert torch.equal(colours, colours[:1].expand_as(colours))


def test_bad_settings_are_told():
    with pytest.raises(DataError, match="face"):
        Critters(poses="behind")
    with pytest.raises(DataError, match="size=0"):
        Critters(size=0)
    with pytest.raises(IndexError):
        Critters(size=3).sample(3)
