"""Do pictures show what was asked for: the class, and what each pixel is meant to be?"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metrics.pictures import Measured, required
from metrics.probe import Look


@dataclass(frozen=True)
class Confusion:
    """How many pixels of each true label (rows) were called each label (columns). Parts add up."""

    counts: Int[Tensor, "K K"]

    @classmethod
    def of(cls, said: Int[Tensor, "*pixels"], truth: Int[Tensor, "*pixels"], num_labels: int) -> Self:
        """Labels from 0 to num_labels - 1, in any equal shapes."""
        pairs = truth.flatten() * num_labels + said.flatten()
        return cls(torch.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.counts + other.counts)

    @property
    def iou(self) -> Float[Tensor, "K"]:
        """Intersection over union of each label, over all pixels; NaN for a label that occurs on neither side."""
        hits = self.counts.diagonal().double()
        return hits / (self.counts.sum(dim=0) + self.counts.sum(dim=1) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean over the labels that occur."""
        return self.iou.nanmean().item()


@dataclass(frozen=True)
class ClassAccuracy:
    """Share of fakes in which the probe sees the class that was asked for."""

    probe: Look
    num_images: int

    def __call__(self, measured: Measured) -> dict[str, float]:
        right = []
        for pictures in measured.fakes(self.num_images):
            asked = required(pictures.label, "class_accuracy", "class labels").argmax(dim=1)
            right.append(self.probe(pictures.image).class_logits.argmax(dim=1) == asked)
        return {"class_accuracy": torch.cat(right).double().mean().item()}


@dataclass(frozen=True)
class LabelAgreement:
    """Mean intersection over union between the label maps that belong to fakes and what the probe sees in them."""

    probe: Look
    num_images: int

    def __call__(self, measured: Measured) -> dict[str, float]:
        total = None
        for pictures in measured.fakes(self.num_images):
            asked = required(pictures.label_map, "label_miou", "label maps")
            logits = self.probe(pictures.image).label_logits
            part = Confusion.of(logits.argmax(dim=1, keepdim=True), asked, logits.shape[1])
            total = part if total is None else total + part
        return {"label_miou": total.mean_iou if total else float("nan")}
