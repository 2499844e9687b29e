"""EG3D (Chan et al., CVPR 2022): tri-planes from StyleGAN2, volume rendering, super-resolution."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dnnlib.errors import ConfigError
from torch_utils.record import Record
from training.contracts import Camera, Codes, Condition, GeneratorOutput, PointOutput, RenderOptions
from training.layers.fields import TriplaneField
from training.layers.labels import CAMERA_NUMBERS
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import Noise, SynthesisNetwork
from training.layers.upsample import SuperResolution
from training.rendering.hierarchical import RaySettings, ray_draws, render_rays
from training.rendering.rays import image_rays
from training.rendering.volume import activate_density
from training.schedules import ramp


@dataclass(frozen=True, kw_only=True)
class TriplaneCodes(Codes):
    """Style vectors of the backbone; the last one is also super-resolution's."""

    rows: ClassVar[tuple[str, ...]] = ("ws",)
    ws: Float[Tensor, "N L w"]


@dataclass(frozen=True, kw_only=True)
class TriplaneScene(Record):
    """A scene that can be seen from any camera."""

    planes: Float[Tensor, "N H W 3 C"]
    ws: Float[Tensor, "N L w"]


class TriplaneGenerator(nn.Module):
    """A 3D-aware generator: mapping -> backbone -> three planes -> field along rays -> super-resolution.

    The mapping network is told 25 camera numbers, times camera_scale, and then the class label, if its c_dim is more
    than 25. Without pose_conditioning it is told zeros for the camera. upsampler None: the raw image is the image.
    In training the raw image's side goes from raw_resolution_initial to raw_resolution over raw_fade_kimg; `noise` and
    random jitter are those of training too. Where RenderOptions name no resolution it is raw_resolution.
    """

    def __init__(
        self, *, mapping: MappingNetwork, backbone: SynthesisNetwork, field: TriplaneField,
        upsampler: SuperResolution | None, rays: RaySettings | None = None, raw_resolution: int = 64,
        raw_resolution_initial: int | None = None, raw_fade_kimg: float = 1000, pose_conditioning: bool = True,
        camera_scale: float = 1.0, noise: Noise = "random",
    ) -> None:  # fmt: skip
        super().__init__()
        mapping.serve(backbone.num_ws, backbone.w_dim)
        if backbone.img_channels != 3 * field.features:
            raise ConfigError(
                f"backbone.img_channels={backbone.img_channels} must be 3 planes of field.features={field.features}."
            )
        if 0 < mapping.c_dim < CAMERA_NUMBERS:
            raise ConfigError(f"mapping.c_dim={mapping.c_dim}: give {CAMERA_NUMBERS} (camera) + class numbers, or 0.")
        self.mapping_network, self.backbone, self.field, self.upsampler = mapping, backbone, field, upsampler
        self.rays = rays or RaySettings()
        self.raw_resolution, self.raw_fade_kimg = raw_resolution, raw_fade_kimg
        self.raw_resolution_initial = raw_resolution if raw_resolution_initial is None else raw_resolution_initial
        self.pose_conditioning, self.camera_scale = pose_conditioning, camera_scale
        self.noise: Noise = noise
        self.z_dim = mapping.z_dim
        self.img_resolution = raw_resolution if upsampler is None else upsampler.img_resolution

    def mapping(self, z: Float[Tensor, "N z"], condition: Condition, update_emas: bool = False) -> TriplaneCodes:
        return TriplaneCodes(ws=self.mapping_network(z, self._told(z, condition), update_emas))

    def _told(self, z: Tensor, condition: Condition) -> Float[Tensor, "N c"] | None:
        """The conditioning vector."""
        if self.mapping_network.c_dim == 0:
            return None
        camera = z.new_zeros(z.shape[0], CAMERA_NUMBERS)
        if self.pose_conditioning and self.camera_scale:
            if condition.camera is None:
                raise ConfigError("this generator is conditioned on poses, and there is no camera in the condition")
            camera = condition.camera.label() * self.camera_scale
        if self.mapping_network.c_dim == CAMERA_NUMBERS:
            return camera
        if condition.label is None:
            raise ConfigError("this generator is conditioned on class labels, and there is none in the condition")
        return torch.cat([camera, condition.label], dim=1)

    def mean_codes(self) -> TriplaneCodes:
        return TriplaneCodes(ws=self.mapping_network.mean())

    def options_at(self, nimg: int) -> RenderOptions:
        resolution = ramp(nimg, self.raw_fade_kimg, self.raw_resolution_initial, self.raw_resolution)
        return RenderOptions(
            noise=self.noise, jitter="random", density_noise=self.rays.density_noise, resolution=round(resolution)
        )

    def synthesis(self, codes: TriplaneCodes, camera: Camera | None, options: RenderOptions) -> GeneratorOutput:
        if camera is None:
            raise ValueError("this generator predicts no camera, so it needs one to render from")
        return self.render(self.scene(codes, options), camera, options)

    def scene(self, codes: TriplaneCodes, options: RenderOptions) -> TriplaneScene:
        image = self.backbone(codes.ws, options.noise, options.draws and options.draws.within("backbone"))
        planes = image.permute(0, 2, 3, 1).contiguous()  # no copy if the image is channels_last
        return TriplaneScene(planes=planes.unflatten(3, (3, self.field.features)), ws=codes.ws)

    def render(self, scene: TriplaneScene, camera: Camera, options: RenderOptions) -> GeneratorOutput:
        """Cameras and items go together one by one; a single scene is seen by all cameras, and the other way round."""
        side = options.resolution or self.raw_resolution
        settings = self.rays if options.samples is None else replace(self.rays, samples=options.samples)
        rays = image_rays(camera.expand(len(scene)), side, options.patch)
        draws = ray_draws(
            rays, settings.samples, jitter=options.source() if options.jitter == "random" else None,
            noise=options.source() if options.density_noise else None, noise_std=options.density_noise,
        )  # fmt: skip
        ends = settings.range(rays, self.field.box_side)
        seen = render_rays(self.field, scene.planes, rays, ends, settings, draws, options.chunk)
        n = len(seen)

        def image(t: Tensor) -> Tensor:
            return t.reshape(n, side, side, -1).permute(0, 3, 1, 2)

        features = image(seen.features)
        final = raw = features[:, :3]
        if self.upsampler is not None:
            ws = scene.ws.expand(n, -1, -1)
            final, raw = self.upsampler(raw, features, ws, options.draws and options.draws.within("upsampler"))
        return GeneratorOutput(
            image=final, image_raw=raw, depth=image(seen.depth), opacity=image(seen.opacity), features=features,
            camera=camera.expand(n),
        )  # fmt: skip

    def query(self, scene: TriplaneScene, points: Float[Tensor, "N P 3"], directions: Any = None) -> PointOutput:
        raw, colour = self.field(scene.planes, points)
        density = activate_density(raw, self.rays.density_activation, self.rays.density_shift)
        return PointOutput(raw_density=raw, density=density, colour=colour)
