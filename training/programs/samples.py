"""The sample grid of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.contracts import CameraRig, Condition, ConditionPool, Draws, RenderOptions


@dataclass(frozen=True)
class SampleGrid:
    """The same latents all through training: a row shares a latent, a column shares a camera.

    So a drifting identity is visible at a glance. A generator without a camera fills the row with other latents.
    """

    net: str = "G_ema"
    latents: int = 8
    yaws: tuple[float, ...] = (-0.5, 0.0, 0.5)  # from the rig's mean, radians
    seed: int = 0

    @property
    def columns(self) -> int:
        return len(self.yaws)

    @torch.no_grad()
    def __call__(
        self,
        nets: Mapping[str, nn.Module],
        rig: CameraRig,
        pool: ConditionPool,
        options: RenderOptions,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Pictures by name (image, image_raw, depth ...), [rows * columns, C, H, W], row by row."""
        G = nets[self.net]
        turns = hasattr(G, "scene")
        count = self.latents if turns else self.latents * len(self.yaws)
        draws = Draws(seed=self.seed, phase="samples", items=range(count), batch=count, device=device)
        label = pool.conditions(draws.integers("item", len(pool)).cpu()).label
        condition = Condition(camera=rig.mean.expand(count), label=label).to(device)
        codes = G.mapping(draws.normal("z", (G.z_dim,)), condition)  # pyright: ignore
        if not turns:
            return {"image": G.synthesis(codes, None, options).image}  # pyright: ignore
        scene = G.scene(codes, options)  # pyright: ignore
        views = [
            G.render(scene, rig.at(rig.yaw_mean + yaw, rig.pitch_mean).expand(count).to(device), options)  # pyright: ignore
            for yaw in self.yaws
        ]
        pictures = {}
        for name in ("image", "image_raw", "depth"):
            if getattr(views[0], name) is not None:
                pictures[name] = torch.stack([getattr(view, name) for view in views], dim=1).flatten(0, 1)
        return pictures
