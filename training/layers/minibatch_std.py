"""Minibatch standard deviation: a feature that shows a discriminator how much its batch varies (Karras et al. 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dnnlib.errors import ConfigError


class MinibatchStd(nn.Module):
    """Append num_channels features: the standard deviation over a group of items, averaged over pixels and channels.

    A group is min(group_size, N) items (None: all of them); with M groups, items n, n + M, n + 2M ... share one. Raises
    ConfigError if the groups do not come out even.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def alternates(self, count: int) -> bool:
        """Whether two batches of `count`, alternating in one, are grouped as they are apart: in every other group."""
        return self.group_size is not None and count % self.group_size == 0

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D H W"]:
        n, channels, height, width = x.shape
        group = n if self.group_size is None else min(self.group_size, n)
        if n % group:
            raise ConfigError(
                f"{n} images in a (micro-)batch do not make groups of {group} for the minibatch deviation"
            )
        y = x.reshape(group, n // group, self.num_channels, channels // self.num_channels, height, width)
        y = y - y.mean(dim=0)
        y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))  # [groups, num_channels]
        y = y.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, y], dim=1)
