"""The surface that a depth picture shows: points and normals in the world. Depth is the distance along the unit ray."""

import torch
from jaxtyping import Float
from torch import Tensor

from training.rendering.cameras import Camera
from training.rendering.rays import image_rays


def surface_points(camera: Camera, depth: Float[Tensor, "N 1 R R"]) -> Float[Tensor, "N 3 R R"]:
    """What the middle of every pixel shows: position + depth * unit ray, scene units."""
    points = image_rays(camera, depth.shape[3]).at(depth.flatten(1)[:, :, None])
    return points.squeeze(2).transpose(1, 2).unflatten(2, depth.shape[2:])


def surface_normals(points: Float[Tensor, "N 3 h w"]) -> Float[Tensor, "N 3 h-2 w-2"]:
    """Unit normals towards the viewer: the cross product of central differences to the right and up.

    One pixel is lost on each side. As colours they span [-1, 1].
    """
    right = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    up = points[:, :, :-2, 1:-1] - points[:, :, 2:, 1:-1]
    return torch.nn.functional.normalize(torch.linalg.cross(right, up, dim=1), dim=1)
