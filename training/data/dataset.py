"""What every data set offers to the loop, the command line and the metrics.

A data set knows its items by index. Pixels come from sample(item), everything else that is known about an item from
conditions(items), which decodes no image; so a draw may ask for the cameras of items that nobody looks at.
"""

import mmap
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from training.contracts import Condition


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The pixels of one item."""

    image: UInt8[Tensor, "C H W"]
    label_map: UInt8[Tensor, "1 h w"] | None = None  # class indices, or an edge map: 0 lines, 255 paper
    depth: Float[Tensor, "1 H W"] | None = None  # distance along the unit ray; 0 where there is nothing


class DataSet:
    """Base of all data sets; also a contracts.ConditionPool."""

    name: str  # short, fit for the name of a run folder
    resolution: int
    num_channels: int = 3
    label_dim: int = 0  # length of Condition.label; 0: the data set is used without labels
    num_classes: int = 0  # values of label maps, background included; 1: edge maps; 0: no maps
    has_cameras: bool = False

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, item: int) -> Sample:
        """The pixels of an item. Raises DataError naming file and entry."""
        raise NotImplementedError

    def conditions(self, items: Int[Tensor, "N"]) -> Condition:
        """Camera (None without has_cameras) and label (None unless label_dim) of these items, on the CPU."""
        raise NotImplementedError

    def check(self) -> None:
        """Read all that can be read fast; raises DataError for the first entry that cannot be used."""


class ImageCache:
    """Decoded images of one shape, filled as they are asked for.

    Lives in anonymous shared memory, so that worker processes forked later fill it together; a page that holds no image
    takes no memory.
    """

    def __init__(self, length: int, shape: tuple[int, ...]) -> None:
        pages = mmap.mmap(-1, max(length * (1 + int(np.prod(shape))), 1))
        everything = np.frombuffer(pages, dtype=np.uint8)
        self._full, self._images = everything[:length], everything[length:].reshape(length, *shape)

    def __getitem__(self, item: int) -> Tensor | None:
        return torch.from_numpy(self._images[item].copy()) if self._full[item] else None

    def __setitem__(self, item: int, image: Tensor) -> None:
        self._images[item] = image.numpy()
        self._full[item] = 1  # last, so that nobody sees half an image

    @staticmethod
    def fits(length: int, shape: tuple[int, ...], limit: int = 2**30) -> bool:
        """Whether all images together take at most `limit` bytes."""
        return length * int(np.prod(shape)) <= limit
