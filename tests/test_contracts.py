"""Codes: truncation, interpolation and mixing know no model."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.record import cat
from training.contracts import Camera, CameraRig, Codes, Condition, GeneratorOutput, RenderOptions


@dataclass(frozen=True, kw_only=True)
class TwoKinds(Codes):
    rows = ("ws", "film")
    ws: Float[Tensor, "N L W"]
    film: Float[Tensor, "N L F"]
    background: Float[Tensor, "N B"]


def codes(value: float, n: int = 2) -> TwoKinds:
    return TwoKinds(
        ws=torch.full((n, 4, 3), value), film=torch.full((n, 4, 5), value), background=torch.full((n, 2), value)
    )


def test_truncation_moves_only_the_chosen_rows():
    cut = codes(0.0, n=1).lerp(codes(1.0), 0.7, slice(2))
    torch.testing.assert_close(cut.ws[:, :2], torch.full((2, 2, 3), 0.7))
    assert (cut.ws[:, 2:] == 1).all()
    assert (cut.background == 1).all()
    assert cut.film.shape == (2, 4, 5)


def test_psi_of_one_changes_no_bit():
    mean, other = codes(0.1234567, n=1), codes(0.7654321)
    assert torch.equal(mean.lerp(other, 1.0).ws, other.ws)


def test_a_predicted_camera_is_never_blended():
    camera = CameraRig(radius=2.7, focal=4.26).at(torch.tensor([0.1, 0.2]))
    one = TwoKinds(**{**codes(1.0).__dict__, "camera": camera})
    assert codes(0.0).lerp(one, 0.0).camera is camera


def test_mixing_takes_rows_of_the_other():
    mixed = codes(0.0).mix(codes(1.0), slice(1, 3))
    assert mixed.ws[0, :, 0].tolist() == [0, 1, 1, 0]
    assert (mixed.background == 0).all()


def test_records_are_cut_joined_and_mapped_with_all_that_is_in_them():
    camera = CameraRig(radius=1.0, focal=1.0).at(torch.linspace(0, 1, 4))
    output = GeneratorOutput(image=torch.arange(4.0).reshape(4, 1, 1, 1), camera=camera)
    parts = [output[0::2], output[1::2]]
    assert len(parts[0]) == 2
    joined = cat(parts)
    assert joined.image.flatten().tolist() == [0, 2, 1, 3]
    assert isinstance(joined.camera, Camera)
    torch.testing.assert_close(joined.camera.cam2world[1], camera.cam2world[2])
    assert joined.depth is None


def test_a_record_without_tensors_has_no_batch():
    with pytest.raises(ValueError, match="no batch size"):
        len(Condition())


def test_options_without_draws_say_what_is_missing():
    with pytest.raises(ValueError, match=r"options.using\(draws\)"):
        RenderOptions(noise="random").source()
