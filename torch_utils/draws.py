"""Random numbers by name.

A draw is a pure function of (seed, phase, images seen, index of the item in the global batch, name). It does not
depend on what was drawn before, on how the batch is cut into micro-batches, or on the number of ranks; so a run is the
same on one GPU or eight and after any resume, and a recorded draw can be put in by its name.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

Per = Literal["item", "batch"]


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Draws:
    """The random numbers of some items of one batch of one phase.

    Every method takes the draw's name and the shape for one item. per="item" gives [len(items), *shape], every row
    its own; per="batch" gives [*shape], the same for the whole batch on every rank.
    """

    seed: int
    phase: str = ""
    nimg: int = 0
    items: Sequence[int] = (0,)  # global indices of the items of this micro-batch
    batch: int = 1  # items in the global batch
    scope: str = ""
    device: torch.device | str = "cpu"
    recorded: Mapping[str, Tensor] = field(default_factory=dict)  # draws to put in, by full name

    def within(self, scope: str) -> Self:
        """The same source with every name put under `scope`: two passes of one phase draw different noise."""
        return replace(self, scope=f"{self.scope}{scope}/")

    def neighbours(self) -> Self:
        """The draws of each item's predecessor in the global batch (the first item's is the last)."""
        per_item = {name for name, t in self.recorded.items() if t.ndim and t.shape[0] == len(self.items)}
        rolled = {name: t.roll(1, 0) if name in per_item else t for name, t in self.recorded.items()}
        return replace(self, items=[(i - 1) % self.batch for i in self.items], recorded=rolled)

    def normal(self, name: str, shape: Sequence[int] = (), per: Per = "item") -> Tensor:
        """Standard normal numbers."""
        return self._draw(name, per, lambda g: torch.randn(tuple(shape), generator=g))

    def uniform(self, name: str, shape: Sequence[int] = (), per: Per = "item") -> Tensor:
        """Numbers in [0, 1)."""
        return self._draw(name, per, lambda g: torch.rand(tuple(shape), generator=g))

    def integers(self, name: str, high: int, shape: Sequence[int] = (), per: Per = "item") -> Tensor:
        """Whole numbers in [0, high), int64."""
        return self._draw(name, per, lambda g: torch.randint(high, tuple(shape), generator=g))

    def _draw(self, name: str, per: Per, make) -> Tensor:
        full = self.scope + name
        if full in self.recorded:
            return self.recorded[full].to(self.device)
        key = (self.seed, self.phase, self.nimg, full)
        if per == "batch":
            return make(_generator(*key)).to(self.device)
        return torch.stack([make(_generator(*key, item)) for item in self.items]).to(self.device)
