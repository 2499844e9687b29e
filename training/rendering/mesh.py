"""From a field to triangles: densities on a grid, the surface of one level, normals and colours of its vertices.

A field is a callable, so this serves every model. Points are in scene units and the world's axes, y up; densities in
1 / unit. grid[z, y, x] has R x R x R nodes, the first and the last of which lie on the faces of a cube around the
origin. Arrays are the CPU's, where meshes are made and written.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor

from dnnlib.progress import progress
from torch_utils.images import to_uint8
from torch_utils.mesh_files import ColouredMesh
from training.rendering.volume import ray_weights

# points [P, 3] and directions of sight [P, 3] or None -> densities [P], colours in [-1, 1] [P, F]
PointField = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
Grid = Float32[np.ndarray, "R R R"]
AT_ONCE = 2**17  # points that a field is asked for: EG3D's needs 100 MB for so many
BENEATH = 16  # samples under a vertex, for its colour


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise as seen from outside."""

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "T 3"]

    def normals(self) -> Float32[np.ndarray, "V 3"]:
        """Unit normals of vertices: the sum over their faces, each as heavy as it is large."""
        a, b, c = (self.vertices[self.faces[:, i]].astype(np.float64) for i in range(3))
        across = np.cross(b - a, c - a)
        names = self.faces.ravel()
        total = [np.bincount(names, np.repeat(across[:, i], 3), len(self.vertices)) for i in range(3)]
        return F.normalize(torch.from_numpy(np.stack(total, axis=1)), dim=1, eps=1e-30).float().numpy()

    def largest(self) -> Self:
        """The connected part that encloses most. Hollows in it are parts of their own, so it comes out solid."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ends = self.faces[:, [0, 1, 1, 2]].reshape(-1, 2).T
        links = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(len(self.vertices),) * 2)
        part = connected_components(links, directed=False)[1][self.faces[:, 0]]
        a, b, c = (self.vertices[self.faces[:, i]].astype(np.float64) for i in range(3))
        enclosed = np.bincount(part, np.einsum("ti,ti->t", a, np.cross(b, c)))
        return self.made_of(self.faces[part == enclosed.argmax()])

    def made_of(self, faces: Int[np.ndarray, "_ 3"]) -> Self:
        """Only these faces, and the vertices that they use."""
        used, names = np.unique(faces, return_inverse=True)
        return type(self)(self.vertices[used], names.reshape(-1, 3).astype(np.int32))


def density_grid(
    field: PointField, side: float, resolution: int, device: torch.device | str = "cpu", what: str = "density"
) -> Grid:
    """Densities in the cube of this side, AT_ONCE at a time, telling how far it is."""
    grid = np.empty(resolution**3, np.float32)
    axis = torch.linspace(-side / 2, side / 2, resolution, device=device)
    starts = range(0, len(grid), AT_ONCE)
    for start in progress(starts, len(starts), what):
        node = torch.arange(start, min(start + AT_ONCE, len(grid)), device=device)
        where = [node % resolution, node // resolution % resolution, node // resolution**2]
        with torch.no_grad():
            density, _ = field(axis[torch.stack(where, dim=1)], None)
        grid[start : start + AT_ONCE] = density.float().cpu().numpy()
    return grid.reshape(resolution, resolution, resolution)


def surface_level(grid: Grid, side: float) -> float | None:
    """A third of the density at which light from the front has lost half of itself: the median over lines of sight.

    They run along -z through the middle of the subject: |x| and |y| below an eighth of the side. None if there is no
    line on which so much is lost. The rule follows the field's scale, whatever its unit and activation; more than a
    third loses the parts of a young model that are half fog, such as ears, and less takes the fog around it in.
    """
    count = len(grid)
    middle = slice(3 * count // 8, count - 3 * count // 8)
    along = grid[::-1, middle, middle]
    lost = along.cumsum(axis=0, dtype=np.float64) * (side / (count - 1)) >= math.log(2)
    first = lost.argmax(axis=0)
    found = np.take_along_axis(along, first[None], axis=0)[0][lost.any(axis=0)]
    return float(np.median(found)) / 3 if len(found) else None


def surface(grid: Grid, side: float, level: float) -> Mesh:
    """Where the density is `level`; closed: where the cube cuts matter, the mesh runs along the cube's face.

    Marching cubes (Lewiner et al. 2003, in scikit-image). Raises ValueError if the level does not occur.
    """
    from skimage.measure import marching_cubes

    if not grid.min() < level <= grid.max():
        raise ValueError(f"the densities {grid.min():.4g} to {grid.max():.4g} do not reach across {level:.4g}")
    places, faces, _, _ = marching_cubes(np.pad(grid, 1), level)  # nothing is outside
    vertices = (places[:, ::-1].astype(np.float64) - 1) * (side / (len(grid) - 1)) - side / 2
    return _welded(vertices.clip(-side / 2, side / 2).astype(np.float32), faces)


def _welded(vertices: Float32[np.ndarray, "V 3"], faces: Int[np.ndarray, "T 3"]) -> Mesh:
    """Vertices at one place, as they are along the cube's edges, become one; what shrinks to a line goes."""
    vertices, names = np.unique(vertices, axis=0, return_inverse=True)
    faces = names.reshape(-1)[faces].astype(np.int32)
    a, b, c = faces.T
    return Mesh(vertices, faces).made_of(faces[(a != b) & (b != c) & (c != a)])


def coloured(
    mesh: Mesh, field: PointField, side: float, level: float, spacing: float, device: torch.device | str = "cpu"
) -> ColouredMesh:
    """The mesh with normals and colours from the field. spacing: of the nodes that the mesh was made from."""
    reach = max(1 / level, 2 * spacing)  # on that way matter thrice as dense as the level takes 95 % of the light
    normals, colours = [], []
    own, on_cube = mesh.normals(), np.abs(mesh.vertices).max(axis=1) >= np.float32(side / 2)
    for part in _parts(len(mesh.vertices)):
        points, across = (torch.from_numpy(a[part]).to(device) for a in (mesh.vertices, own))
        cut = torch.from_numpy(on_cube[part]).to(device)
        normals.append(_field_normals(field, points, across, cut).cpu())
        colours.append(_seen(field, points, -across, reach).cpu())
    levels = to_uint8(torch.cat(colours).T[None, :, None])[0, 0]
    return ColouredMesh(mesh.vertices, mesh.faces, torch.cat(normals).numpy(), levels)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, AT_ONCE // BENEATH):
        yield slice(start, start + AT_ONCE // BENEATH)


def _field_normals(
    field: PointField, points: Float[Tensor, "P 3"], own: Float[Tensor, "P 3"], cut: Tensor
) -> Float[Tensor, "P 3"]:
    """Where density falls fastest. The mesh's own where that says nothing: at cuts, and where density jumps."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        density, _ = field(points, None)
        asked = density.requires_grad  # a field may not answer by way of its points at all
        uphill = torch.autograd.grad(density.sum(), points, allow_unused=True)[0] if asked else None
    if uphill is None:
        return own
    normals = F.normalize(-uphill, dim=1, eps=1e-30)
    agree = (normals * own).sum(dim=1) > 0  # false for what is no number, too
    return torch.where((agree & ~cut)[:, None], normals, own)


@torch.no_grad()
def _seen(
    field: PointField, points: Float[Tensor, "P 3"], inwards: Float[Tensor, "P 3"], reach: float
) -> Float[Tensor, "P 3"]:
    """The colours that the volume renderer shows of matter beneath these points, looking straight at it."""
    edges = reach * (torch.arange(BENEATH + 1, device=points.device) / BENEATH).square()
    depths = (edges[1:] + edges[:-1]) / 2
    where = points[:, None] + inwards[:, None] * depths[:, None]
    density, colour = field(where.flatten(0, 1), inwards.repeat_interleave(BENEATH, dim=0))
    weights = ray_weights(density.view(-1, BENEATH), edges.expand(len(points), -1))
    weights = weights + 1e-6  # so that where there is nothing they are equal
    colour = colour[:, :3].view(len(points), BENEATH, -1).expand(-1, -1, 3)
    return (weights[..., None] * colour).sum(dim=1) / weights.sum(dim=1, keepdim=True)
