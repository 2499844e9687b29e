"""What the losses of a GAN are: blur, critic, R1, swapped poses, density, on networks whose answers are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import filter2d
from training.contracts import (
    Batch,
    CameraRig,
    Codes,
    Condition,
    DiscriminatorOutput,
    Draws,
    GeneratorOutput,
    Inputs,
    RenderOptions,
)  # fmt: skip
from training.discriminators.dual import DualDiscriminator
from training.losses.adversarial import DiscriminatorFake, DiscriminatorLogistic, DiscriminatorReal
from training.losses.critic import ImageCritic, blur
from training.losses.density import DensityTV
from training.losses.draws import PoseSwap
from training.losses.r1 import R1Penalty
from training.step import Step

RIG = CameraRig(radius=2.7, focal=4.26)
N = 4


class Pool:
    """Cameras by item, all different."""

    cameras = RIG.at(torch.linspace(-0.5, 0.5, 10))

    def __len__(self) -> int:
        return len(self.cameras)

    def conditions(self, items: Tensor) -> Condition:
        return Condition(camera=self.cameras[items])


class LinearJudge(nn.Module):
    """Scores are weighted sums of pixels, so every derivative is a weight."""

    sees = ("image", "image_raw")

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Parameter(torch.randn(3, 16, 16)), nn.Parameter(torch.randn(3, 8, 8))

    def forward(self, output, told, draws=None) -> DiscriminatorOutput:
        return DiscriminatorOutput(
            score=(output.image * self.fine).sum((1, 2, 3)) + (output.image_raw * self.coarse).sum((1, 2, 3))
        )


def make_batch() -> Batch:
    return Batch(image=torch.randn(N, 3, 16, 16), condition=Condition(camera=RIG.mean.expand(N)), pool=Pool())


def make_draws(**recorded: Tensor) -> Draws:
    return Draws(seed=3, phase="Gmain", items=range(N), batch=N, recorded=recorded)


def make_step(critic: ImageCritic, nimg: int = 0) -> Step:
    G = SimpleNamespace(options_at=lambda nimg: RenderOptions(resolution=8))
    step = Step(
        nets={"G": G, "D": LinearJudge()}, batch=make_batch(), inputs=Inputs(), draws=make_draws(), nimg=nimg,
        critics={"D": critic},
    )  # fmt: skip
    step.leaves = True
    return step


def test_blur_halves_at_sigma_and_keeps_the_sum():
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    seen = blur(point, 2.0)[0, 0]
    assert seen.sum().item() == pytest.approx(1, abs=1e-5)
    assert (seen[10, 12] / seen[10, 10]).item() == pytest.approx(0.5, abs=1e-5)
    assert (seen[12, 12] / seen[10, 10]).item() == pytest.approx(0.25, abs=1e-5)
    assert seen[10, 4] > 0  # it reaches three sigma
    assert seen[10, 3].abs() < 1e-8
    assert torch.equal(blur(point, 0.3), point)


def test_blur_fades_and_spares_the_raw_image_of_fakes():
    critic = ImageCritic("D", raw=True, blur_sigma=1.0, blur_fade_kimg=2)
    assert [critic.sigma(nimg) for nimg in (0, 1000, 2000, 9000)] == [1.0, 0.5, 0.0, 0.0]
    made = GeneratorOutput(image=torch.randn(N, 3, 16, 16), image_raw=torch.randn(N, 3, 8, 8))
    seen = critic.look(made, 0, make_draws())
    assert seen.image_raw is made.image_raw
    assert torch.equal(seen.image, blur(made.image, 1.0))
    batch, options = make_batch(), RenderOptions(resolution=8)
    sharp, soft = critic.real(batch, options, 9000).image_raw, critic.real(batch, options, 0).image_raw
    assert sharp is not None
    assert soft is not None
    assert torch.equal(soft, blur(sharp, 1.0))


class Told:
    """A step's parts for a discriminator's own phase."""

    def __init__(self, D: nn.Module, count: int) -> None:
        def image(size: int) -> Tensor:
            return torch.randn(count, 3, size, size, dtype=torch.float64)

        rig = RIG.at(torch.linspace(-0.5, 0.5, 2 * count)).map(lambda t: t.double())
        made = GeneratorOutput(image=image(16), image_raw=image(8), depth=image(8)[:, :1])
        G = SimpleNamespace(options_at=lambda nimg: RenderOptions(resolution=8), synthesis=lambda *args: made)
        G.mapping = lambda *args: Codes()
        self.step = Step(
            nets={"G": G, "D": D}, batch=Batch(image=image(16), condition=Condition(camera=rig[:count])),
            inputs=Inputs(condition=Condition(camera=rig[count:]), camera=rig[count:]),
            draws=Draws(seed=3, phase="Dmain", items=range(count), batch=count), nimg=0,
            critics={"D": ImageCritic("D", raw=True, blur_sigma=1.0, blur_fade_kimg=2)},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "options", "passes"),
    [
        (8, {"mbstd_group_size": 4}, 1),
        (8, {"mbstd_num_channels": 0}, 1),
        (8, {"mbstd_group_size": None}, 2),  # all pictures of a pass are compared
        (4, {"mbstd_group_size": 8}, 2),
        (8, {"disc_c_noise": 0.5}, 2),
    ],
)
def test_fakes_and_reals_share_a_pass_where_that_changes_nothing(count, options, passes):
    D = DualDiscriminator(img_resolution=16, channel_max=6, **options).double()
    asked = []
    D.register_forward_hook(lambda *args: asked.append(1))
    slopes = []
    for terms in ([DiscriminatorLogistic()], [DiscriminatorFake(), DiscriminatorReal()]):
        torch.manual_seed(5)
        step = Told(D, count).step
        torch.stack([term(step).mean() for term in terms]).sum().backward()
        slopes.append([p.grad for p in D.parameters()])
        D.zero_grad()
    assert len(asked) == passes + 2
    for one, two in zip(*slopes, strict=True):
        assert one.any()
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("by", ["data", "seen"])
def test_r1_is_the_squared_slope_by_all_pictures(by):
    step = make_step(ImageCritic("D", raw=True, blur_sigma=1.0, blur_fade_kimg=2))
    D = step.nets["D"]
    fine = D.fine.detach()
    if by == "data":  # the adjoint of a symmetric filter with zeros outside is itself
        taps = torch.arange(-3, 4).square().neg().exp2()
        fine = filter2d(fine[None], taps / taps.sum())[0]
    slope = fine.square().sum() + D.coarse.detach().square().sum()
    torch.testing.assert_close(R1Penalty(gamma=5.0, by=by)(step), (2.5 * slope).expand(N), rtol=1e-4, atol=0)


def test_r1_is_differentiable_in_the_weights():
    step = make_step(ImageCritic("D", raw=True))
    D = step.nets["D"]
    R1Penalty(gamma=2.0)(step).mean().backward()
    torch.testing.assert_close(D.fine.grad, 2 * D.fine.detach())


def swap(nimg: int, **options) -> Inputs:
    draw = PoseSwap(z_dim=2, fade_kimg=2, **options)
    return draw(make_batch(), make_draws(item=torch.tensor([3, 1, 4, 5])), nimg, {})


def test_at_first_mapping_is_told_the_previous_images_camera():
    inputs = swap(0, probability=0.5)
    assert inputs.camera is not None
    assert inputs.condition.camera is not None
    assert torch.equal(inputs.camera.label(), Pool.cameras[torch.tensor([3, 1, 4, 5])].label())
    assert torch.equal(inputs.condition.camera.label(), Pool.cameras[torch.tensor([5, 3, 1, 4])].label())
    assert torch.equal(inputs.told.camera.label(), inputs.camera.label())  # pyright: ignore[reportOptionalMemberAccess]


def test_later_some_images_keep_their_own():
    coin = torch.tensor([0.1, 0.9, 0.4, 0.6])
    draw = PoseSwap(z_dim=2, probability=0.5, fade_kimg=2)
    assert [draw.chance(nimg) for nimg in (0, 1000, 2000)] == [1.0, 0.75, 0.5]
    inputs = draw(make_batch(), make_draws(item=torch.tensor([3, 1, 4, 5]), swap=coin), 2000, {})
    assert inputs.condition.camera is not None
    assert torch.equal(inputs.condition.camera.label(), Pool.cameras[torch.tensor([5, 1, 1, 5])].label())


def test_without_pose_conditioning_mapping_is_told_no_camera():
    inputs = swap(0, probability=None)
    assert inputs.condition.camera is None
    assert inputs.camera is not None


def test_density_regulariser_is_the_mean_step_of_the_field():
    """s(p) = 3 x: |s(p) - s(p + e)| = 3 |e_x|, whose mean is 3 std sqrt(2 / pi)."""
    field = SimpleNamespace(
        query=lambda scene, points: SimpleNamespace(raw_density=3 * points[..., 0]), scene=lambda codes, options: None,
        mapping=lambda z, condition, update_emas: Codes(), options_at=lambda nimg: RenderOptions(),
    )  # fmt: skip
    step = Step(nets={"G": field}, batch=make_batch(), inputs=Inputs(), draws=make_draws(), nimg=0, critics={})
    values = DensityTV(weight=2.0, std=0.01, points=20_000)(step)
    assert values.shape == (N,)
    assert values.mean().item() == pytest.approx(2 * 3 * 0.01 * math.sqrt(2 / math.pi), rel=0.01)


def test_reals_are_leaves_only_where_slopes_are_wanted():
    step = make_step(ImageCritic("D"))
    assert step.real().image.requires_grad
    other = Step(nets=step.nets, batch=step.batch, inputs=Inputs(), draws=make_draws(), nimg=0, critics=step.critics)
    assert not other.real().image.requires_grad
