"""The probe: a small network that says what a critter picture shows, and the loader of its committed weights.

It reads images of any size (worked on at 64 px) and answers where the camera stands, which class the head is, what
every pixel belongs to, whose head it is and how spoilt the picture is; means of its inner activations are the features
of `frechet_probe2k`. It is trained on critters alone (experiment=probe), blurred, recoloured and stained on the way, so
that it also reads pictures of generators trained on critters. It says nothing useful about other pictures.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.record import Record

WEIGHTS = Path(__file__).with_name("probe.safetensors")
WEIGHTS_SHA256 = "30458164cb1771834c59c49d7cd91c44281301f266dadcedae0ce5f8867d0c62"
RESOLUTION = 64  # pixels; what the network works at


@dataclass(frozen=True)
class ProbeOutput(Record):
    """What the probe sees in each image."""

    direction: Float[Tensor, "N 3"]  # from the subject to the camera, unit length, world axes of the camera rig
    class_logits: Float[Tensor, "N classes"]
    label_logits: Float[Tensor, "N labels H W"]  # at the image's size
    embedding: Float[Tensor, "N E"]  # unit vector: two views of one identity agree
    damage: Float[Tensor, "N D"]  # how stained, noisy, blurred and coarse the picture is, about 0 to 1 each

    def angles(self) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Yaw and pitch of the camera, radians."""
        x, y, z = self.direction.unbind(dim=1)
        return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


Look = Callable[[Float[Tensor, "N 3 H W"]], ProbeOutput]  # how metrics take the probe


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.SiLU())


class Probe(nn.Module):
    """A U-shaped network: an encoder from 64 to 4 px, three small heads, and a decoder back to 64 px for label maps.

    channels: widths at 64, 32, 16, 8 and 4 px; embedding: size of the identity vector; summary: size of what the heads
    read.
    """

    def __init__(
        self, *, classes: int = 3, labels: int = 7, channels: Sequence[int] = (16, 32, 64, 80, 80), summary: int = 128,
        embedding: int = 32, damage: int = 6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sizes = {"classes": classes, "labels": labels, "channels": list(channels), "summary": summary,
                      "embedding": embedding, "damage": damage}  # fmt: skip
        at64, at32, at16, at8, at4 = channels
        self.down = nn.ModuleList([
            nn.Sequential(nn.Conv2d(3, at64, 3, 1, 1), nn.SiLU()),  # not normalised, so that features show contrast
            nn.Sequential(_conv(at64, at32, 2), _conv(at32, at32)),
            nn.Sequential(_conv(at32, at16, 2), _conv(at16, at16)),
            nn.Sequential(_conv(at16, at8, 2), _conv(at8, at8)),
            _conv(at8, at4, 2),
        ])  # fmt: skip
        self.summary = nn.Sequential(nn.Flatten(), nn.Linear(at4 * 16, summary), nn.SiLU())
        self.direction = nn.Linear(summary, 3)
        self.category = nn.Linear(summary, classes)
        self.identity = nn.Linear(summary, embedding)
        self.damage = nn.Linear(sum(channels), damage)
        pairs = [(at8, at16), (at16, at32), (at32, at64)]
        self.lateral = nn.ModuleList(nn.Conv2d(below, here, 1) for below, here in pairs)
        self.up = nn.ModuleList(_conv(here, here) for _, here in pairs)
        self.label = nn.Conv2d(at64, labels, 1)

    def forward(self, image: Float[Tensor, "N 3 H W"]) -> ProbeOutput:
        """image in [-1, 1]."""
        levels = self._encode(image)
        summary = self.summary(levels[4])
        return ProbeOutput(
            direction=F.normalize(self.direction(summary), dim=1),
            class_logits=self.category(summary),
            label_logits=_resize(self._decode(levels), image.shape[2], image.shape[3]),
            embedding=F.normalize(self.identity(summary), dim=1),
            damage=self.damage(_means(levels)),
        )

    def features(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N F"]:
        """Means over all places of the activations of every level: from colour and texture to what the head is."""
        return _means(self._encode(image))

    def _encode(self, image: Float[Tensor, "N 3 H W"]) -> list[Tensor]:
        x = _resize(image, RESOLUTION, RESOLUTION)
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        return levels

    def _decode(self, levels: Sequence[Tensor]) -> Float[Tensor, "N labels 64 64"]:
        x = levels[3]
        for lateral, up, skip in zip(self.lateral, self.up, (levels[2], levels[1], levels[0]), strict=True):
            x = up(F.interpolate(lateral(x), scale_factor=2, mode="bilinear") + skip)
        return self.label(x)


def _means(levels: Sequence[Tensor]) -> Float[Tensor, "N F"]:
    return torch.cat([level.mean(dim=(2, 3)) for level in levels], dim=1)


def _resize(x: Float[Tensor, "N C H W"], height: int, width: int) -> Float[Tensor, "N C h w"]:
    """Bilinear, antialiased when shrinking; nothing to do at the right size."""
    if x.shape[2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True)


class TrainedProbe(Probe):
    """The probe with its committed weights, in eval mode and without gradients for its weights.

    path: other weights, written by save_probe(). Raises CheckpointError if the file is absent, damaged or, without a
    path, not the one this version was committed with.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        file = Path(path) if path else WEIGHTS
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"the probe's weights {file} cannot be read: {error.strerror}.") from error
        found = hashlib.sha256(data).hexdigest()
        if path is None and found != WEIGHTS_SHA256:
            raise CheckpointError(f"{file} is not the file this version was committed with: check it out again.")
        try:
            state, sizes = load(data), json.loads(_metadata(data)["sizes"])
            super().__init__(**sizes)
            self.load_state_dict(state)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{file} holds no weights of a probe, or it was cut short.") from error
        self.sha256 = found
        self.eval().requires_grad_(False)


class ProbeFeatures:
    """The probe's features alone, as Fréchet distances want them."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def __call__(self, image: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N F"]:
        return self.probe.features(image)


def save_probe(probe: Probe, path: str | Path) -> str:
    """Write weights, in half precision, that TrainedProbe reads.

    Returns the file's SHA-256; that of the committed file belongs into WEIGHTS_SHA256.
    """
    state = {name: tensor.detach().half().cpu().contiguous() for name, tensor in probe.state_dict().items()}
    data = save(state, {"sizes": json.dumps(probe.sizes)})
    Path(path).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """The text that a safetensors file carries: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]
