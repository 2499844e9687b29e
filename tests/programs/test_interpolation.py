import math

import numpy as np
import pytest
import torch

from tests.toy_sphere import BallCodes
from training.build import build
from training.contracts import CameraRig, Shot
from training.programs.interpolation import spline_weights
from training.programs.load import load_program

RIG = CameraRig(radius=2.7, focal=4.26)


def shots(values: list[float], frames: int) -> list[Shot]:
    program = build(load_program("interpolation", [("frames", str(frames))]), where="interpolation")
    return list(program.shots([BallCodes(ws=torch.full((1, 2, 3), value)) for value in values], RIG))


def test_the_film_passes_through_every_seed():
    values = [0.0, 2.0, -1.0]
    film = shots(values, 5)
    assert len(film) == 15
    assert [film[5 * k].codes.ws[0, 0, 0].item() for k in range(3)] == pytest.approx(values, abs=1e-6)


def test_a_circle_of_seeds_becomes_a_circle():
    knots = np.cos(math.tau * np.arange(8) / 8)
    curve = spline_weights(8, 10) @ knots
    assert np.abs(curve - np.cos(math.tau * np.arange(80) / 80)).max() < 2e-3


def test_codes_that_agree_stay():
    assert spline_weights(5, 7).sum(axis=1) == pytest.approx(np.ones(35))


@pytest.mark.parametrize("knots", [2, 3, 6])
def test_the_film_has_no_seam(knots: int):
    values = np.random.RandomState(0).randn(knots)
    film, later = (
        [shot.codes.ws[0, 1, 2].item() for shot in shots(v.tolist(), 7)] for v in (values, np.roll(values, -1))
    )
    assert np.roll(film, -7).tolist() == pytest.approx(later, abs=1e-6)


def test_one_seed_only_turns():
    film = shots([0.7], 9)
    assert all(torch.equal(shot.codes.ws, film[0].codes.ws) for shot in film)
    assert len({shot.camera.position[0, 0].item() for shot in film}) == 9


def test_the_camera_goes_round_once():
    yaws = torch.cat([shot.camera.angles()[0] for shot in shots([0.0, 1.0, 2.0], 4)])
    expected = [0.35 * math.sin(math.tau * frame / 12) for frame in range(12)]
    assert yaws.tolist() == pytest.approx(expected, abs=1e-5)


def test_every_frame_has_a_scene_of_its_own():
    assert len({shot.scene for shot in shots([0.0, 1.0], 6)}) == 12
