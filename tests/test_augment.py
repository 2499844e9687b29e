"""What a critic shows D under augmentation, what D is told of it, and how its strength adapts."""

import pytest
import torch

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from training.augment import PIPES, Augmentation, transformations
from training.contracts import CameraRig, Condition, GeneratorOutput
from training.losses.critic import ImageCritic

RIG = CameraRig(radius=2.7, focal=4.26)
DRAWS = Draws(seed=1, items=range(8))
ALONE = lambda t: t  # noqa: E731 # what a single rank sums


def picture() -> GeneratorOutput:
    """Bright on the left, dark on the right."""
    image = torch.linspace(1, -1, 32).expand(8, 3, 32, 32)
    return GeneratorOutput(image=image, image_raw=image[:, :, ::2, ::2])


def test_a_mirrored_picture_is_told_with_a_mirrored_camera():
    augmentation = Augmentation(pipe="blit", settings={"rotate90": 0, "xint": 0}, p=1.0)
    camera = RIG.at(torch.linspace(-0.5, 0.4, 8))
    seen, told = augmentation.look(picture(), DRAWS), augmentation.told(Condition(camera=camera), DRAWS)
    for image in (seen.image, seen.image_raw):
        assert image is not None
        mirrored = image[..., :4].mean((1, 2, 3)) < 0
        assert 0 < mirrored.sum() < 8
        assert told.camera is not None
        assert torch.allclose(told.camera.angles()[0], torch.where(mirrored, -1, 1) * camera.angles()[0], atol=1e-6)


def test_cameras_stay_where_nothing_is_mirrored_or_a_reference_leaves_them():
    told = Condition(camera=RIG.at(torch.linspace(-0.5, 0.4, 8)))
    assert Augmentation(pipe="color", p=1.0).told(told, DRAWS) is told
    assert Augmentation(pipe="bgc", p=1.0, mirrors_camera=False).told(told, DRAWS) is told
    assert Augmentation(pipe="bgc", p=1.0).told(Condition(), DRAWS) == Condition()


def test_image_and_raw_image_are_transformed_alike():
    seen = Augmentation(pipe="bg", p=1.0).look(picture(), DRAWS)
    assert seen.image_raw is not None
    small = torch.nn.functional.avg_pool2d(seen.image, 2)
    assert (small - seen.image_raw)[..., 2:-2, 2:-2].abs().mean() < 0.05
    assert (seen.image - picture().image).abs().mean() > 0.2


def test_the_critic_shows_and_tells_with_the_same_draws():
    critic = ImageCritic("D", augment=Augmentation(pipe="blit", settings={"rotate90": 0, "xint": 0}, p=1.0))
    camera = RIG.at(torch.linspace(-0.5, 0.4, 8))
    mirrored = critic.look(picture(), 0, DRAWS).image[..., :4].mean((1, 2, 3)) < 0
    told = critic.told(Condition(camera=camera), DRAWS).camera
    assert told is not None
    assert torch.equal(told.angles()[0].sign(), torch.where(mirrored, -1.0, 1.0) * camera.angles()[0].sign())


def hear(augmentation: Augmentation, share: float) -> None:
    """D says of this share of 100 reals that they are real."""
    augmentation.hear(torch.where(torch.arange(100) < 100 * share, 0.5, -2.0))


def test_strength_goes_towards_the_target_and_never_below_zero():
    augmentation = Augmentation(target=0.6, interval=4, kimg=500)
    for iteration in range(1, 9):
        hear(augmentation, 0.9)  # mean sign 0.8
        assert augmentation.end_iteration(iteration, 64, ALONE) == {"p": augmentation.p}
    assert augmentation.p == pytest.approx(2 * 64 * 4 / 500_000)
    for iteration in range(9, 25):
        hear(augmentation, 0.7)  # 0.4
        augmentation.end_iteration(iteration, 64, ALONE)
    assert augmentation.p == 0


def test_strength_is_the_mean_since_it_last_changed():
    augmentation = Augmentation(target=0.6, kimg=1)
    for iteration, share in enumerate([1.0, 0.7, 0.7, 0.7], start=1):  # mean sign 0.55
        hear(augmentation, share)
        augmentation.end_iteration(iteration, 16, ALONE)
    assert augmentation.p == 0
    for iteration, share in enumerate([1.0, 0.8, 0.7, 0.8], start=5):  # 0.65
        hear(augmentation, share)
        augmentation.end_iteration(iteration, 16, ALONE)
    assert augmentation.p == pytest.approx(0.064)


def test_a_fixed_strength_stays():
    augmentation = Augmentation(p=0.2)
    hear(augmentation, 1.0)
    assert augmentation.end_iteration(4, 16, ALONE) == {"p": 0.2}


def test_it_goes_on_from_its_state():
    one, other = Augmentation(target=0.6, kimg=1), Augmentation(target=0.6, kimg=1)
    for iteration in range(1, 7):
        hear(one, 0.9)
        one.end_iteration(iteration, 16, ALONE)
    other.load_state_dict(one.state_dict())
    for augmentation in (one, other):
        for iteration in (7, 8):
            hear(augmentation, 0.8)  # 0.6: above the target only with what was heard before
            augmentation.end_iteration(iteration, 16, ALONE)
    assert one.p == other.p == pytest.approx(0.128)


def test_pipes_are_the_papers():
    assert [len(transformations(pipe)) for pipe in PIPES] == [3, 4, 5, 1, 1, 1, 7, 12, 13, 14, 15]
    assert transformations("bgcf") == (*transformations("bgc"), "imgfilter")


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="augpipe=bcg: there is no such pipe; did you mean bg or bgc"):
        Augmentation(pipe="bcg")
    with pytest.raises(ConfigError, match=r"settings\.xflipp: .* did you mean xflip"):
        Augmentation(settings={"xflipp": 1})
