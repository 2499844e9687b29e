"""The tri-plane look-up: facts, and the fast path against its twin."""

import pytest
import torch

from torch_utils.ops.triplane import add_in_turn, add_sorted, plane_coordinates, sample_each_plane, sample_planes

F64 = torch.float64


def twin(planes, points, axes, box_side):
    return sample_each_plane(planes, points, axes, box_side).mean(dim=1)


@pytest.mark.parametrize("axes", ["fixed", "legacy"])
@pytest.mark.parametrize(("batch", "items", "height", "width"), [(2, 2, 8, 8), (1, 3, 5, 9), (2, 2, 1, 7)])
def test_the_fast_path_agrees_with_the_twin(axes, batch, items, height, width):
    planes = torch.randn(batch, height, width, 3, 4, dtype=F64, requires_grad=True)
    points = (torch.rand(items, 40, 3, dtype=F64) - 0.5) * 1.6  # a good part of them outside
    fast, slow = (f(planes, points, axes, 1.3) for f in (sample_planes, twin))
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)
    probe = torch.randn_like(fast)
    slopes = [torch.autograd.grad((found * probe).sum(), planes)[0] for found in (fast, slow)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("add", [add_in_turn, add_sorted])  # of a CPU, of a GPU
def test_both_ways_to_add_rows_are_the_transposed_matrix(add):
    x, cells, weights = torch.randn(50, 4, dtype=F64), torch.randint(9, (50, 12)).int(), torch.randn(50, 12, dtype=F64)
    cells[cells == 3] = 2  # nothing comes to row 3
    matrix = torch.zeros(50, 10, dtype=F64).scatter_add_(1, cells.long(), weights)
    torch.testing.assert_close(add(x, cells, weights, 10), matrix.t() @ x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_points_stay_as_they_are(shape):
    points = torch.rand(3, *shape).movedim(0, 2)
    before = points.clone()
    sample_planes(torch.randn(1, 6, 6, 3, 4), points, "fixed", 1.6)
    assert torch.equal(points, before)


def test_single_precision_agrees_on_large_planes():
    planes, points = torch.randn(1, 256, 256, 3, 8), torch.rand(1, 3000, 3) - 0.5
    torch.testing.assert_close(sample_planes(planes, points), twin(planes, points, "fixed", 1.0), atol=2e-5, rtol=0)


@pytest.mark.parametrize("axes", ["fixed", "legacy"])
def test_gradients_to_planes_of_first_and_second_order(axes):
    planes = torch.randn(2, 3, 4, 3, 2, dtype=F64, requires_grad=True)
    points = (torch.rand(2, 5, 3, dtype=F64) - 0.5) * 1.2
    assert torch.autograd.gradcheck(lambda p: sample_planes(p, points, axes), planes)
    assert torch.autograd.gradgradcheck(lambda p: sample_planes(p, points, axes), planes)


@pytest.mark.parametrize("axes", ["fixed", "legacy"])
def test_gradients_to_points(axes):
    planes = torch.randn(1, 4, 4, 3, 2, dtype=F64, requires_grad=True)
    texels = (torch.rand(2, 6, 3, dtype=F64) * 3).floor() + 0.2 + 0.6 * torch.rand(2, 6, 3, dtype=F64)
    points = ((texels + 0.5) / 2 - 1).div(2).requires_grad_()  # away from the creases between texels
    assert torch.autograd.gradcheck(lambda p, x: sample_planes(p, x, axes), (planes, points))


def test_points_are_read_where_the_axes_say():
    """A plane that is linear across the box gives its coordinates back."""
    size = 32
    ramp = (torch.arange(size, dtype=F64) + 0.5) / size - 0.5
    planes = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), dim=-1).flip(-1)  # (u, v) at each texel
    planes = planes[None, :, :, None].expand(1, size, size, 3, 2)
    points = (torch.rand(1, 50, 3, dtype=F64) - 0.5) * 0.9
    x, y, z = points[0].unbind(dim=1)
    seen = {"fixed": ((x, y), (x, z), (z, y)), "legacy": ((x, y), (x, z), (z, x))}
    for axes, pairs in seen.items():
        expected = torch.stack([torch.stack(pair, dim=-1) for pair in pairs])
        torch.testing.assert_close(sample_each_plane(planes, points, axes)[0], expected)
        torch.testing.assert_close(plane_coordinates(points, axes)[0], expected)
        torch.testing.assert_close(sample_planes(planes, points, axes)[0], expected.mean(dim=0))


def test_only_the_fixed_axes_tell_points_apart_that_differ_in_y_and_z():
    planes = torch.randn(1, 8, 8, 3, 4, dtype=F64)
    points = torch.tensor([[[0.0, 0.1, 0.2], [0.0, 0.1, -0.2], [0.0, -0.1, 0.2], [0.0, -0.1, -0.2]]], dtype=F64)
    mixed = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)  # takes away all that y alone or z alone explain
    for axes, sees in (("fixed", True), ("legacy", False)):
        found = (mixed @ sample_planes(planes, points, axes)[0]).abs().max()
        assert (found > 1e-3) == sees


def test_the_box_scales_with_its_side_and_ends_at_its_faces():
    planes = torch.randn(1, 8, 8, 3, 4)
    points = torch.rand(1, 20, 3) - 0.5
    torch.testing.assert_close(sample_planes(planes, points * 1.6, "fixed", 1.6), sample_planes(planes, points))
    far = torch.tensor([[[0.9, 0.9, 0.9], [-0.7, 0.8, 2.0]]])
    assert not sample_planes(planes, far).any()


def test_planes_of_one_item_serve_points_of_many():
    planes, points = torch.randn(1, 6, 6, 3, 4), torch.rand(3, 10, 3) - 0.5
    torch.testing.assert_close(sample_planes(planes, points), sample_planes(planes.expand(3, -1, -1, -1, -1), points))


def test_low_precision_planes_are_looked_up_too():
    planes, points = torch.randn(1, 6, 6, 3, 4), torch.rand(1, 10, 3) - 0.5
    found = sample_planes(planes.bfloat16(), points)
    torch.testing.assert_close(found.float(), sample_planes(planes, points), atol=0.05, rtol=0)


def test_what_is_no_number_gives_what_is_no_number():
    planes, points = torch.randn(1, 6, 6, 3, 4), torch.rand(1, 10, 3) - 0.5
    points[0, 4, 1] = torch.nan
    points[0, 5] = torch.inf
    found = sample_planes(planes, points)
    assert found[0, 4].isnan().all()
    assert found[0, [*range(4), *range(6, 10)]].isfinite().all()
