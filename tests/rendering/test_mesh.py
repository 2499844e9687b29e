import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from torch_utils.mesh_files import ColouredMesh
from training.data.critters_shape import LABELS, heads
from training.rendering import mesh as library
from training.rendering.mesh import Mesh, PointField, coloured, density_grid, surface, surface_level

SIDE, RESOLUTION = 0.7, 64
VOXEL = SIDE / (RESOLUTION - 1)
RED, BLUE = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])


def ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), soft: float = 0.01) -> PointField:
    """Matter that thickens by 1 every `soft` units inwards; its surface, where the density is 10, is a sphere's."""

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        outside = (points - torch.tensor(centre)).norm(dim=1) - radius
        return (10 - outside / soft).clamp_min(0), torch.where(points[:, :1] > 0, RED, BLUE)

    return field


def both(one: PointField, other: PointField) -> PointField:
    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        (a, colour), (b, _) = one(points, directions), other(points, directions)
        return torch.maximum(a, b), colour

    return field


def meshed(field: PointField, side: float = SIDE, resolution: int = RESOLUTION, level: float = 10) -> Mesh:
    return surface(density_grid(field, side, resolution), side, level)


def solid(mesh: Mesh | ColouredMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def critter(item: int):
    head = heads(0, [item])

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        return (10 + 300 * (1 - head.level(points[None])[0])).clamp_min(0), torch.zeros_like(points)

    return head, field


def points_on(head) -> np.ndarray:
    """Of every ellipsoid's surface, what lies in no other: close to 1 / 400 of a head's width apart."""
    i = np.arange(12_000) + 0.5
    level, angle = 1 - 2 * i / len(i), np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - level**2)
    unit = torch.from_numpy(np.stack([ring * np.cos(angle), level, ring * np.sin(angle)], axis=1)).float()
    points = torch.linalg.solve(head.to_ball[0], unit.T).mT + head.centre[0][:, None]
    points = points.reshape(-1, 3)
    return points[head.level(points[None])[0] > 1 - 1e-4].numpy()


def part_at(head, vertex: np.ndarray) -> str:
    """Name of the ellipsoid whose surface a vertex lies on."""
    offset = torch.from_numpy(vertex) - head.centre[0]
    level = torch.einsum("eij,ej->ei", head.to_ball[0], offset).norm(dim=1)
    return LABELS[head.label[0, (level - 1).abs().argmin()]]


@pytest.mark.parametrize("item", [0, 1, 4])
def test_a_critter_comes_out_as_it_is(item: int):
    head, field = critter(item)
    made, true = meshed(field), points_on(head)
    there = cKDTree(true).query(made.vertices)[0]
    back = cKDTree(made.vertices).query(true)[0]
    assert max(there.mean(), back.mean()) < VOXEL / 2  # the Chamfer distance
    assert max(there.max(), back.max()) < 2 * VOXEL  # the Hausdorff distance
    assert solid(made).is_watertight
    assert part_at(head, made.vertices[made.vertices[:, 2].argmax()]) in ("muzzle", "nose")
    assert made.vertices[:, 2].max() > -made.vertices[:, 2].min() - VOXEL  # balanced about the origin, muzzle and all


def test_ears_are_up():
    head, field = critter(next(item for item in range(20) if heads(0, [item]).kind == 0))
    made = meshed(field)
    assert part_at(head, made.vertices[made.vertices[:, 1].argmax()]) == "ears"


def test_a_ball_has_its_volume_area_and_normals():
    field = ball(0.3)
    made = coloured(meshed(field), field, SIDE, 10, VOXEL)
    assert solid(made).volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=2e-3)
    assert solid(made).area == pytest.approx(4 * math.pi * 0.3**2, rel=2e-3)
    assert np.abs(made.normals - made.vertices / 0.3).max() < 2e-3


def test_axes_and_handedness_are_the_worlds():
    field = both(ball(0.1), both(ball(0.05, (0.3, 0, 0)), both(ball(0.06, (0, 0.28, 0)), ball(0.04, (0, 0, -0.3)))))
    found = {tuple(part.centroid.round(2) + 0.0): part.volume for part in solid(meshed(field)).split()}
    assert found.keys() == {(0, 0, 0), (0.3, 0, 0), (0, 0.28, 0), (0, 0, -0.3)}
    assert found[0.3, 0, 0] == pytest.approx(4 / 3 * math.pi * 0.05**3, rel=0.05)
    assert min(found.values()) > 0  # faces are counter-clockwise from outside


def test_matter_that_leaves_the_cube_is_closed_at_its_face():
    field = ball(0.3, (0.2, 0.0, 0.0))
    made = coloured(meshed(field), field, SIDE, 10, VOXEL)
    cap = SIDE / 2 - 0.2
    volume = math.pi * (0.3 + cap) ** 2 * (3 * 0.3 - (0.3 + cap)) / 3  # of a ball cut by a plane
    assert solid(made).is_watertight
    assert made.vertices[:, 0].max() == np.float32(SIDE / 2)
    assert solid(made).volume == pytest.approx(volume, rel=2e-3)
    inside_cap = (made.vertices[:, 0] == np.float32(SIDE / 2)) & (np.hypot(*made.vertices.T[1:]) < 0.24)
    assert np.abs(made.normals[inside_cap] - [1, 0, 0]).max() < 1e-6


def test_matter_everywhere_is_the_cube_itself():
    grid = density_grid(ball(3.0), SIDE, 16)
    grid[8, 8, 8] = 0  # so that the level occurs
    made = solid(surface(grid, SIDE, 10).largest())
    assert made.is_watertight
    assert made.area == pytest.approx(6 * SIDE**2, rel=1e-5)
    assert made.volume == pytest.approx(SIDE**3, rel=1e-5)  # the hollow is not kept


NO_GRADIENT = {
    "none": lambda points: 0.0,
    "zero": lambda points: 0.0 * points.sum(dim=1),
    "of something else": lambda points: torch.zeros((), requires_grad=True),
}


@pytest.mark.parametrize("tie", NO_GRADIENT.values(), ids=NO_GRADIENT)
def test_matter_of_even_density_ends_between_nodes(tie):
    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        return 500.0 * (points.norm(dim=1) < 0.3) + tie(points), points

    grid = density_grid(field, SIDE, RESOLUTION)
    level = surface_level(grid, SIDE)
    made = coloured(surface(grid, SIDE, level), field, SIDE, level, VOXEL)
    assert level == pytest.approx(500 / 3)
    assert solid(made).is_watertight
    assert np.abs(np.linalg.norm(made.vertices, axis=1) - 0.3).max() < VOXEL
    assert (made.normals * made.vertices / 0.3).sum(axis=1).min() > 0.7  # no gradient: the steps' own
    assert np.isfinite(made.colours).all()


def test_the_largest_part_encloses_most():
    speck, hollow = ball(0.03, (-0.3, 0, 0)), ball(0.25, (0.05, 0, 0))

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        density, colour = both(hollow, speck)(points, directions)
        return density.where((points - torch.tensor([0.05, 0, 0])).norm(dim=1) > 0.15, 0.0), colour

    everything = meshed(field)
    largest = everything.largest()
    assert solid(everything).body_count == 3
    assert solid(largest).body_count == 1
    assert solid(largest).volume == pytest.approx(4 / 3 * math.pi * 0.25**3, rel=5e-3)
    assert len(np.unique(largest.faces)) == len(largest.vertices)


def test_the_level_is_where_light_is_lost():
    """Density a t at depth t: half the light is gone where a t^2 / 2 = ln 2, at a density of sqrt(2 a ln 2)."""
    field = ball(0.3 + 0.01 * 10, soft=0.01)  # a = 100, beginning at 0.3 + 0.1 + 0.1 from the middle
    grid = density_grid(lambda p, d: field(p * torch.tensor([0.0, 0.0, 1.0]), d), 1.2, 601 // 4)
    assert surface_level(grid, 1.2) == pytest.approx(math.sqrt(200 * math.log(2)) / 3, rel=0.05)
    assert surface_level(grid * 0, 1.2) is None


def test_light_comes_from_the_front():
    front, back = ball(0.3), ball(0.3, soft=0.02)
    grid = density_grid(lambda p, d: (front(p, d)[0].where(p[:, 2] > 0, back(p, d)[0]), p), SIDE, RESOLUTION)
    seen, behind = (surface_level(density_grid(field, SIDE, RESOLUTION), SIDE) for field in (front, back))
    assert surface_level(grid, SIDE) == seen
    assert seen > 1.1 * behind


def test_the_rule_follows_the_scale():
    small = surface_level(density_grid(ball(0.3), SIDE, RESOLUTION), SIDE)
    grid = density_grid(lambda p, d: (ball(0.3)(p / 10, d)[0] / 10, p), 10 * SIDE, RESOLUTION)
    assert surface_level(grid, 10 * SIDE) == pytest.approx(small / 10, rel=1e-3)


def test_a_level_that_does_not_occur():
    grid = density_grid(ball(0.3), SIDE, 16)
    for level in (0.0, 50.0):
        with pytest.raises(ValueError, match="do not reach across"):
            surface(grid, SIDE, level)


def test_each_side_of_a_ball_has_its_colour():
    field = ball(0.3)
    made = coloured(meshed(field), field, SIDE, 10, VOXEL)
    for side, colour in ((made.vertices[:, 0] > VOXEL, (255, 0, 0)), (made.vertices[:, 0] < -VOXEL, (0, 0, 255))):
        assert np.abs(made.colours[side].astype(int) - colour).max() <= 1


def test_colours_are_composed_of_what_light_meets_on_its_way_in():
    """A red skin as thick as 9 / 16 of the way, under which it is blue; density 20 + 1000 t at depth t."""
    reach = 1 / 20  # of light that meets matter of this level
    skin = reach * 9 / 16

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        depth = 0.3 - points.norm(dim=1)
        facing = 0.0 if directions is None else (directions * points).sum(dim=1)[:, None] / -points.norm(dim=1)[:, None]
        return (20 + 1000 * depth).clamp_min(0), torch.where(depth[:, None] < skin, RED * facing, BLUE)

    def passed(depth: float) -> float:
        return math.exp(-20 * depth - 500 * depth**2)

    made = coloured(meshed(field, level=20), field, SIDE, 20, VOXEL)
    red = (1 - passed(skin)) / (1 - passed(reach))
    assert 0.5 < red < 0.9
    assert np.abs(made.colours / 255 - [red, 0, 1 - red]).max() < 0.01


def test_a_field_is_asked_for_no_more_points_than_it_can_bear(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        asked.append(len(points))
        return ball(0.3)(points, directions)

    whole = coloured(meshed(ball(0.3)), ball(0.3), SIDE, 10, VOXEL)
    monkeypatch.setattr(library, "AT_ONCE", 1000)
    made = coloured(meshed(field), field, SIDE, 10, VOXEL)
    assert max(asked) == 1000
    for name in ("vertices", "faces", "normals", "colours"):
        assert np.array_equal(getattr(made, name), getattr(whole, name))
