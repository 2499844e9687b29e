"""What every plug-in may assume: the values that cross floors, and the protocols of those who make them.

Images are float [N, C, H, W] in [-1, 1]; label maps int64 [N, 1, H, W]; angles radians; distances scene units.
Everything here is frozen. docs/contracts.md explains it with a toy model that the tests train.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torch_utils.draws import Draws
from torch_utils.record import Record
from training.rendering.cameras import Camera, CameraRig

__all__ = [
    "Batch", "Camera", "CameraRig", "Codes", "Condition", "ConditionPool", "Critic", "DiscriminatorOutput", "Draw",
    "Draws", "Generator", "GeneratorOutput", "Inputs", "PointOutput", "RenderOptions", "SceneGenerator", "Shot",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Condition(Record):
    """What a model may be conditioned on, and what a critic may be told. None where there is none."""

    camera: Camera | None = None
    label: Float[Tensor, "N label_dim"] | None = None  # one-hot where the data hold class indices
    label_map: Int[Tensor, "N 1 h w"] | None = None
    image: Float[Tensor, "N C H W"] | None = None


@dataclass(frozen=True, kw_only=True)
class Codes(Record):
    """What mapping() says about a scene. A model's subclass adds its tensors and names the row-wise ones in `rows`.

    A row is one style vector: tensors named in `rows` are [N, L, ...]; all of them are blended and mixed alike.
    """

    rows: ClassVar[tuple[str, ...]] = ()
    camera: Camera | None = None  # predicted by pose-free models; never blended

    @property
    def num_rows(self) -> int:
        return getattr(self, self.rows[0]).shape[1] if self.rows else 0

    def lerp(self, other: Self, t: float, rows: slice | None = None) -> Self:
        """self + t (other - self) in the chosen rows (default all); elsewhere, and in all else, other.

        Truncation is `mean.lerp(codes, psi, slice(cutoff))`: rows from the cutoff on stay as they are.
        """

        def blend(a: Tensor, b: Tensor) -> Tensor:
            chosen = rows or slice(None)
            out = b.clone()
            out[:, chosen] = a[:, chosen].expand_as(b[:, chosen]).lerp(b[:, chosen], t)
            return out

        return replace(other, **{name: blend(getattr(self, name), getattr(other, name)) for name in self.rows})

    def mix(self, other: Self, rows: slice) -> Self:
        """self with the chosen rows taken from other."""

        def take(a: Tensor, b: Tensor) -> Tensor:
            out = a.clone()
            out[:, rows] = b[:, rows]
            return out

        return replace(self, **{name: take(getattr(self, name), getattr(other, name)) for name in self.rows})


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """How to render, for every generator. Default: deterministic, fully grown, the generator's own sizes."""

    noise: Literal["const", "random", "none"] = "const"  # per-pixel noise of synthesis layers
    jitter: Literal["middle", "random"] = "middle"  # where in its bin a depth sample lies
    density_noise: float = 0.0  # standard deviation, added to raw densities
    resolution: int | None = None  # rays along a side of the volume-rendered image
    samples: tuple[int, int] | None = None  # samples a ray: coarse, fine
    image_resolution: int | None = None  # of the final image, where growing limits it
    growth: float | None = None  # progressive growing from 0 to 1
    patch: Float[Tensor, "N 4"] | None = None  # part of the image: x0, y0, width, height in [0, 1]
    chunk: int | None = None  # rays or points at a time, to bound memory; None: the renderer's choice
    draws: Draws | None = None  # where random noise and jitter come from

    def source(self) -> Draws:
        """The draws, for code that needs random numbers."""
        if self.draws is None:
            raise ValueError("these options ask for random numbers, so they need draws: options.using(draws)")
        return self.draws

    def using(self, draws: Draws) -> Self:
        return replace(self, draws=draws)

    def still(self) -> Self:
        """The same without anything random."""
        return replace(self, noise="const", jitter="middle", density_noise=0.0, draws=None)


@dataclass(frozen=True, kw_only=True)
class GeneratorOutput(Record):
    """Pictures of a scene. None where a model has none; a model's subclass adds what only it has."""

    image: Float[Tensor, "N C H W"]
    image_raw: Float[Tensor, "N C h w"] | None = None  # volume-rendered, before super-resolution
    depth: Float[Tensor, "N 1 h w"] | None = None  # distance along the unit ray
    opacity: Float[Tensor, "N 1 h w"] | None = None  # sum of the compositing weights
    label_logits: Float[Tensor, "N K H W"] | None = None
    label_logits_raw: Float[Tensor, "N K h w"] | None = None
    features: Float[Tensor, "N F h w"] | None = None
    camera: Camera | None = None  # the camera it was seen from


@dataclass(frozen=True, kw_only=True)
class PointOutput(Record):
    """What a field says at points."""

    raw_density: Float[Tensor, "N P"]  # before the activation
    density: Float[Tensor, "N P"]  # 1 / scene unit, >= 0
    colour: Float[Tensor, "N P F"]
    label_logits: Float[Tensor, "N P K"] | None = None


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOutput(Record):
    """What a discriminator says about pictures."""

    score: Float[Tensor, "N"]  # logit: > 0 means real
    pose: Float[Tensor, "N P"] | None = None  # as D encodes cameras: raw numbers, not always a camera
    latent: Float[Tensor, "N z"] | None = None
    class_logits: Float[Tensor, "N C"] | None = None
    features: tuple[Tensor, ...] = ()


@runtime_checkable
class Generator(Protocol):
    """A network that makes images from codes."""

    z_dim: int
    img_resolution: int

    def mapping(self, z: Float[Tensor, "N z"], condition: Condition, update_emas: bool = False) -> Codes:
        """Codes of latents. update_emas collects means that commit_averages() takes over once a batch."""
        ...

    def synthesis(self, codes: Any, camera: Camera | None, options: RenderOptions) -> GeneratorOutput:
        """The picture of these codes. A given camera overrides a predicted one."""
        ...

    def mean_codes(self) -> Codes:
        """The centre of truncation, a batch of one."""
        ...

    def options_at(self, nimg: int) -> RenderOptions:
        """How to render in training after nimg images: pure, this is the whole schedule. still() is for pictures."""
        ...


@runtime_checkable
class SceneGenerator(Generator, Protocol):
    """A generator whose codes describe a scene that can be seen from many cameras."""

    def scene(self, codes: Any, options: RenderOptions) -> Record:
        """All that does not depend on the camera; render it as often as you like."""
        ...

    def render(self, scene: Any, camera: Camera, options: RenderOptions) -> GeneratorOutput: ...

    def query(self, scene: Any, points: Float[Tensor, "N P 3"], directions: Tensor | None = None) -> PointOutput: ...


@runtime_checkable
class ConditionPool(Protocol):
    """A data set as draws see it: conditions by item, without images."""

    def __len__(self) -> int: ...

    def conditions(self, items: Int[Tensor, "N"]) -> Condition: ...


@dataclass(frozen=True, kw_only=True)
class Batch(Record):
    """Some items of a data set: this rank's and micro-batch's share of the global batch."""

    image: Float[Tensor, "N C H W"]
    condition: Condition  # what the data know about these images
    depth: Float[Tensor, "N 1 H W"] | None = None
    item: Int[Tensor, "N"] | None = None  # index in the data set
    pool: ConditionPool | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Inputs(Record):
    """What a phase feeds its nets, drawn once a micro-batch."""

    z: Float[Tensor, "N z"] | None = None
    condition: Condition = Condition()  # what mapping() is told
    camera: Camera | None = None  # what is rendered
    label: Float[Tensor, "N label_dim"] | None = None  # what critics are told besides the camera
    patch: Float[Tensor, "N 4"] | None = None  # see RenderOptions
    mixing: tuple[Tensor, int] | None = None  # a second z, whose codes are taken from this row on
    chosen: Bool[Tensor, "N"] | None = None  # a coin a draw has tossed for its terms

    @property
    def told(self) -> Condition:
        """What critics are told about the fakes."""
        return Condition(camera=self.camera, label=self.label)


@runtime_checkable
class Draw(Protocol):
    """Chooses a phase's inputs. It may look at nets (GMNR keeps the lowest-scored of four poses)."""

    def __call__(self, batch: Batch, draws: Draws, nimg: int, nets: Mapping[str, nn.Module]) -> Inputs: ...


@runtime_checkable
class Critic(Protocol):
    """How a discriminator looks at pictures: resizing, blur and augmentation belong to it."""

    @property
    def net(self) -> str:
        """Name of the discriminator."""
        ...

    def real(self, batch: Batch, options: RenderOptions, nimg: int) -> GeneratorOutput:
        """The batch as if a generator had made it with these options."""
        ...

    def look(self, output: GeneratorOutput, nimg: int, draws: Draws) -> GeneratorOutput:
        """What the discriminator's net is shown of these pictures: its input."""
        ...

    def told(self, told: Condition, draws: Draws) -> Condition:
        """What holds of the pictures as look() shows them, with the same draws: a mirrored one has another camera."""
        ...

    def hear(self, score: Float[Tensor, "N"]) -> None:
        """Take note of what the discriminator says of real pictures."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shot(Record):
    """One frame of a render program."""

    codes: Codes
    camera: Camera
    scene: Hashable = None  # equal for shots that show the same codes, so that their scene is built once
