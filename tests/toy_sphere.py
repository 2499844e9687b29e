"""A generator whose pictures are known in closed form: a ball at the origin that shows its normals as colours.

Codes tint it and choose its radius, so seeds differ; it counts the scenes it builds.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.record import Record
from training.contracts import Camera, Codes, Condition, GeneratorOutput, RenderOptions


@dataclass(frozen=True, kw_only=True)
class BallCodes(Codes):
    rows: ClassVar[tuple[str, ...]] = ("ws",)
    ws: Float[Tensor, "N 2 3"]


@dataclass(frozen=True, kw_only=True)
class Ball(Record):
    radius: Float[Tensor, "N"]
    tint: Float[Tensor, "N 3"]


class BallGenerator(nn.Module):
    def __init__(self, img_resolution: int = 16, label_dim: int = 0) -> None:
        super().__init__()
        self.z_dim, self.img_resolution, self.label_dim = 3, img_resolution, label_dim
        self.weight = nn.Parameter(torch.eye(3))
        self.scenes_built = 0

    def mapping(self, z: Float[Tensor, "N z"], condition: Condition, update_emas: bool = False) -> BallCodes:
        w = z @ self.weight
        if self.label_dim:
            assert condition.label is not None
            w = w + condition.label.argmax(dim=1, keepdim=True)
        return BallCodes(ws=torch.stack([w, w], dim=1))

    def mean_codes(self) -> BallCodes:
        return BallCodes(ws=torch.zeros(1, 2, 3))

    def options_at(self, nimg: int) -> RenderOptions:
        return RenderOptions(noise="random", jitter="random")

    def scene(self, codes: BallCodes, options: RenderOptions) -> Ball:
        self.scenes_built += 1
        return Ball(radius=0.3 + 0.1 * torch.sigmoid(codes.ws[:, 0, 0]), tint=0.5 * torch.tanh(codes.ws[:, 1]))

    def render(self, scene: Ball, camera: Camera, options: RenderOptions) -> GeneratorOutput:
        side = options.resolution or self.img_resolution
        middle = (torch.arange(side) + 0.5) / side
        v, u = torch.meshgrid(middle, middle, indexing="ij")
        pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
        rays = nn.functional.normalize(camera.cam2world[:, :3, :3] @ camera.intrinsics.inverse() @ pixels, dim=1)
        position = camera.position[:, :, None]
        along = -(rays * position).sum(dim=1, keepdim=True)
        under = along**2 - (position**2).sum(dim=1, keepdim=True) + scene.radius[:, None, None] ** 2
        depth = along - under.clamp_min(0).sqrt()
        normal = (position + depth * rays) / scene.radius[:, None, None]
        image = torch.where(under > 0, 0.5 * normal + scene.tint[:, :, None], 1.0)
        noise = 0.0
        if options.noise == "random":
            noise = 0.1 * options.source().normal("toy.noise", (3, self.img_resolution, self.img_resolution))
        image = image.unflatten(2, (side, side))
        return GeneratorOutput(
            image=nn.functional.interpolate(image, (self.img_resolution,) * 2) + noise,
            image_raw=image,
            depth=depth.unflatten(2, (side, side)),
            opacity=(under > 0).float().unflatten(2, (side, side)),
            camera=camera,
        )

    def synthesis(self, codes: BallCodes, camera: Camera | None, options: RenderOptions) -> GeneratorOutput:
        assert camera is not None
        return self.render(self.scene(codes, options), camera, options)

    def query(self, scene: Ball, points: Tensor, directions: Tensor | None = None):
        raise NotImplementedError


class FlatGenerator(nn.Module):
    """A generator without camera: its picture is one colour."""

    z_dim, img_resolution = 3, 8

    def mapping(self, z: Float[Tensor, "N z"], condition: Condition, update_emas: bool = False) -> BallCodes:
        return BallCodes(ws=torch.stack([z, z], dim=1))

    def mean_codes(self) -> BallCodes:
        return BallCodes(ws=torch.zeros(1, 2, 3))

    def options_at(self, nimg: int) -> RenderOptions:
        return RenderOptions()

    def synthesis(self, codes: BallCodes, camera: Camera | None, options: RenderOptions) -> GeneratorOutput:
        return GeneratorOutput(image=codes.ws[:, 0, :, None, None].expand(-1, -1, 8, 8))
