"""A toy generator, whose ball shows its normals, as metrics see it."""

from dataclasses import replace

import pytest
import torch

from metrics.reprojection import Reprojection
from tests.toy_sphere import BallGenerator
from torch_utils.record import cat
from training.contracts import CameraRig, RenderOptions
from training.data.critters import Critters
from training.data.dataset import Sample
from training.programs.measured import MeasuredGenerator, rounded

RIG = CameraRig(radius=2.7, focal=3.0, yaw_mean=0.3)


def measured(batch: int = 4, G: BallGenerator | None = None) -> MeasuredGenerator:
    data = Critters(resolution=16, size=10, cond=True)
    return MeasuredGenerator(G=G or BallGenerator(), rig=RIG, data=data, options=RenderOptions(), batch=batch)


def test_reals_are_the_first_items_of_the_data():
    shown = measured()
    parts = list(shown.reals(6))
    assert [len(part) for part in parts] == [4, 2]
    assert torch.equal(parts[1].image[1], shown.data.sample(5).image.float() / 127.5 - 1)
    assert sum(len(part) for part in shown.reals(100)) == 10


def test_fakes_do_not_depend_on_the_batch():
    few, many = (cat(list(measured(batch).fakes(6))) for batch in (2, 5))
    torch.testing.assert_close(few.image, many.image, atol=1e-6, rtol=0)
    assert few.image.std(dim=0).mean() > 0.01  # and differ from one another


def test_fakes_are_seen_by_cameras_of_the_data_and_told_their_labels():
    shown = measured()
    pool = shown.data.conditions(torch.arange(10))
    for position, label in zip(*((f := cat(list(shown.fakes(8)))).camera.position, f.label), strict=True):
        item = (pool.camera.position - position).norm(dim=1).argmin()
        torch.testing.assert_close(pool.camera.position[item], position)
        assert torch.equal(pool.label[item], label)


def test_grey_pictures_repeat_their_channel_in_all_three_ways():
    class GreyBall(BallGenerator):
        def render(self, scene, camera, options):
            output = super().render(scene, camera, options)
            return replace(output, image=output.image[:, :1], image_raw=None)

    G = GreyBall()
    shown = measured(G=G)
    coloured = measured(G=BallGenerator())
    shown.data.sample = lambda item: Sample(image=Critters.sample(shown.data, item).image[:1])
    ways = [(s.reals(6), s.fakes(6), next(iter(s.views(range(3), (0.2,))))) for s in (shown, coloured)]
    for grey, coloured in zip(*ways, strict=True):
        a, b = cat(list(grey)).image, cat(list(coloured)).image
        assert torch.equal(a, b[:, :1].expand(-1, 3, -1, -1))
        assert not torch.equal(a, b)


def test_views_move_only_the_rendering_camera():
    told, G = [], BallGenerator()
    mapping = G.mapping
    G.mapping = lambda z, condition: told.append(condition.camera) or mapping(z, condition)
    first, second = next(iter(measured(G=G).views(range(3), (-0.2, 0.2))))
    assert G.scenes_built == 1
    torch.testing.assert_close(told[0].angles()[0], torch.full((3,), 0.3))
    torch.testing.assert_close(first.camera.angles()[0], torch.full((3,), 0.1))
    torch.testing.assert_close(second.camera.angles()[0], torch.full((3,), 0.5))


def test_the_ball_reprojects_by_its_own_depth():
    shown = measured(G=BallGenerator(img_resolution=32))
    found = Reprojection(4, (-0.1745, 0.1745))(shown)
    assert found["reprojection"] < 0.3 * found["reprojection_unmoved"]
    assert found["reprojection"] < 0.3 * found["reprojection_constant_depth"]


def test_rounding_is_that_of_files():
    assert rounded(torch.tensor([-2.0, -1.0, 0.0, 1.0])).mul(127.5).add(127.5).tolist() == [0, 0, 128, 255]


def test_cameras_of_fakes_are_on_record():
    assert measured().camera_sampling == "data"
    data = measured().data
    data.conditions = lambda items: Critters.conditions(data, items).map(lambda t: t).__class__(camera=None)
    blind = MeasuredGenerator(G=BallGenerator(), rig=RIG, data=data, options=RenderOptions())
    assert blind.camera_sampling == "rig (gaussian)"
    yaw = cat(list(blind.fakes(64))).camera.angles()[0]
    assert yaw.mean().item() == pytest.approx(0.3, abs=0.15)
