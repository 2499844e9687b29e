"""The mapping network: latents and conditions to style vectors w (Karras et al. 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from torch_utils.ema import RunningAverages
from training.layers.linear import FullyConnected, normalize_2nd_moment


class MappingNetwork(RunningAverages):
    """z and a conditioning vector c to w, repeated for every layer of a synthesis network.

    z_dim = 0 maps the condition alone, as discriminators do; c_dim = 0 has no condition. num_ws = None gives w itself.
    w_avg, which exists if w_avg_beta is given, follows the mean w of batches: pass update_emas=True, then
    commit_averages(net) once a batch. Truncation towards w_avg is Codes.lerp.
    """

    w_avg: Tensor

    def __init__(
        self, *, z_dim: int, c_dim: int, w_dim: int, num_ws: int | None = None, num_layers: int = 8,
        embed_features: int | None = None, layer_features: int | None = None, activation: str = "lrelu",
        lr_multiplier: float = 0.01, w_avg_beta: float | None = 0.998,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        embedded = 0 if c_dim == 0 else w_dim if embed_features is None else embed_features
        hidden = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, embedded)
        widths = [z_dim + embedded] + [hidden] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            layer = FullyConnected(widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        if w_avg_beta is not None:
            self.register_average("w_avg", torch.zeros(w_dim), w_avg_beta)

    def serve(self, num_ws: int, w_dim: int) -> None:
        """Make what a synthesis network takes: num_ws rows of w_dim numbers."""
        if self.w_dim != w_dim or self.num_ws not in (None, num_ws):
            raise ConfigError(
                f"mapping makes {self.num_ws or 1} style vectors of {self.w_dim} numbers, but synthesis takes {num_ws} "
                f"of {w_dim}: set the same w_dim for both and leave mapping.num_ws null."
            )
        self.num_ws = num_ws

    def mean(self) -> Float[Tensor, "1 num_ws w"]:
        """The centre of truncation: w_avg in every row."""
        return self.w_avg.clone().expand(1, self.num_ws or 1, -1)

    def forward(
        self, z: Float[Tensor, "N z"] | None, c: Float[Tensor, "N c"] | None = None, update_emas: bool = False
    ) -> Tensor:
        """Style vectors [N, num_ws, w_dim], or [N, w_dim] where num_ws is None."""
        parts = []
        if self.z_dim > 0:
            if z is None or z.shape[1] != self.z_dim:
                raise ValueError(f"this mapping network needs latents of {self.z_dim} numbers")
            parts.append(normalize_2nd_moment(z))
        if self.c_dim > 0:
            if c is None or c.shape[1] != self.c_dim:
                raise ValueError(f"this mapping network needs conditions of {self.c_dim} numbers")
            parts.append(normalize_2nd_moment(self.embed(c)))
        w = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            w = self.get_submodule(f"fc{i}")(w)
        if update_emas and hasattr(self, "w_avg"):
            self.collect("w_avg", w.detach())
        return w if self.num_ws is None else w[:, None].expand(-1, self.num_ws, -1)
