"""Critters: an endless, seeded, procedural set of cartoon animal heads with exact ground truth.

Item i of seed s is always the same head seen by the same camera, whatever the resolution, the order of access or the
number of threads. Unless said otherwise training uses items 0 to 9,999 of seed 0; held-out identities are those of
seed 1. Anatomy in critters_anatomy.py, tensors in critters_shape.py, pictures in critters_render.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dnnlib.errors import DataError
from dnnlib.limits import check_numbers
from torch_utils.draws import Draws
from torch_utils.record import Record, cat
from training.contracts import Condition
from training.rendering.cameras import Camera, CameraRig, pinhole

from .critters_render import measure, paint
from .critters_shape import CLASSES, LABELS, PALETTE, Head, heads, kind_of
from .dataset import DataSet, ImageCache, Sample

__all__ = ["CLASSES", "LABELS", "PALETTE", "RIGS", "CritterView", "Critters"]

RIGS = {
    "face": CameraRig(radius=2.7, focal=4.2647, kind="gaussian", yaw_spread=0.3, pitch_spread=0.155),
    "sphere": CameraRig(radius=2.7, focal=4.2647, kind="sphere"),
}


@dataclass(frozen=True, kw_only=True)
class CritterView(Record):
    """Ground truth of heads as cameras see them. Labels, depth, opacity and edges belong to the pixels' centres."""

    image: Float[Tensor, "N 3 R R"]  # in [-1, 1], multiples of 2/255 as in the uint8 files
    camera: Camera
    kind: Int[Tensor, "N"]  # class: index into CLASSES
    label_map: Int[Tensor, "N 1 R R"]  # index into LABELS
    depth: Float[Tensor, "N 1 R R"]  # distance along the unit ray; 0 on the background
    opacity: Float[Tensor, "N 1 R R"]  # 1 on the head, 0 on the background
    edges: Bool[Tensor, "N 1 R R"]


def _bytes(image: Float[Tensor, "N 3 R R"]) -> Tensor:
    return image.mul(127.5).add(128).clamp(0, 255).to(torch.uint8)


class Critters(DataSet):
    """The data set.

    poses: "face" (gaussian, yaw std 0.3, pitch std 0.155) or "sphere". mirror doubles the list by reflected heads seen
    by reflected cameras: exactly the flipped images. maps adds label or edge maps to samples, depth adds depth.
    cache keeps every image once made; None: when all fit into 1 GiB.
    """

    has_cameras = True

    def __init__(
        self, *, resolution: int = 64, seed: int = 0, size: int = 10_000, poses: str = "face",
        cond: bool = False, mirror: bool = False, maps: str | None = None, depth: bool = False,
        cache: bool | None = None,
    ) -> None:  # fmt: skip
        check_numbers({"resolution": resolution, "seed": seed, "size": size}, "critters", DataError)
        if poses not in RIGS or maps not in (None, "labels", "edges"):
            raise DataError(
                "critters are data=critters (faces) or data=critters:sphere, and their maps are labels=labels or "
                f"labels=edges; there are no poses {poses} with maps {maps}."
            )
        self.name = "critters" if poses == "face" else f"critters-{poses}"
        self.resolution, self.seed, self.rig = resolution, seed, RIGS[poses]
        self.label_dim = len(CLASSES) if cond else 0
        self.num_classes = {None: 0, "edges": 1, "labels": len(LABELS)}[maps]
        self._size, self._mirror, self._maps, self._depth = size, mirror, maps, depth
        shape = (3, resolution, resolution)
        wanted = ImageCache.fits(len(self), shape) if cache is None else cache
        self._cache = ImageCache(len(self), shape) if wanted else None

    def __len__(self) -> int:
        return self._size * (2 if self._mirror else 1)

    def shape(self, item: int) -> Head:
        """The ellipsoids, markings and colours of an item, a batch of one."""
        head = heads(self.seed, [self._original(item)])
        return head.mirrored() if item >= self._size else head

    def camera(self, items: Sequence[int]) -> Camera:
        """The cameras of these items."""
        originals = [self._original(item) for item in items]
        camera = Camera(self._pose(originals), pinhole(self.rig.focal, len(originals)))
        if not self._mirror:
            return camera
        flipped = torch.tensor([item >= self._size for item in items])[:, None, None]
        return Camera(torch.where(flipped, camera.mirrored().cam2world, camera.cam2world), camera.intrinsics)

    def kind(self, item: int) -> int:
        """Class of an item: index into CLASSES."""
        return kind_of(self.seed, self._original(item))

    def sample(self, item: int) -> Sample:
        cached = self._cache[item] if self._cache else None
        if cached is not None and not (self._maps or self._depth):
            return Sample(image=cached)
        head, camera = self.shape(item), self.camera([item])
        image = _bytes(paint(head, camera, self.resolution))[0] if cached is None else cached
        if self._cache and cached is None:
            self._cache[item] = image
        if not (self._maps or self._depth):
            return Sample(image=image)
        labels, depth, _, lines = measure(head, camera, self.resolution)
        maps = {None: None, "labels": labels[0].byte(), "edges": 255 * (~lines[0]).byte()}[self._maps]
        return Sample(image=image, label_map=maps, depth=depth[0] if self._depth else None)

    def conditions(self, items: Int[Tensor, "N"]) -> Condition:
        rows = items.tolist()
        return Condition(camera=self.camera(rows), label=self._classes(rows) if self.label_dim else None)

    def view(self, items: int | Sequence[int], camera: Camera, resolution: int | None = None) -> CritterView:
        """Items as seen from elsewhere: one item from every camera, or each item from its own."""
        rows = [items] if isinstance(items, int) else list(items)
        head = cat([self.shape(item) for item in rows])
        n = max(len(camera), len(rows))
        head, camera = head.expand(n), camera.expand(n)
        resolution = resolution or self.resolution
        image = _bytes(paint(head, camera, resolution)).float() / 127.5 - 1
        labels, depth, opacity, edges = measure(head, camera, resolution)
        return CritterView(
            image=image, camera=camera, kind=head.kind, label_map=labels, depth=depth, opacity=opacity, edges=edges
        )

    def _classes(self, items: Sequence[int]) -> Float[Tensor, "N L"]:
        kinds = torch.tensor([self.kind(item) for item in items])
        return torch.nn.functional.one_hot(kinds, len(CLASSES)).float()

    @cached_property  # made when first needed, so that a fresh data set is sent to other processes without it
    def _poses(self) -> np.ndarray:
        """cam2world of all originals, zeros until one is asked for."""
        return np.zeros((self._size, 4, 4), np.float32)

    def _pose(self, originals: list[int]) -> Float[Tensor, "N 4 4"]:
        """cam2world of originals; each is drawn once."""
        new = [item for item in originals if not self._poses[item, 3, 3]]
        if new:
            self._poses[new] = self.rig.sample(Draws(seed=self.seed, phase="critters", items=new)).cam2world.numpy()
        return torch.from_numpy(self._poses[originals])

    def _original(self, item: int) -> int:
        """The item that this one is or mirrors."""
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)} critters")
        return item % self._size
