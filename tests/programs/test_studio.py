from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.errors import ConfigError
from tests.toy_sphere import BallCodes, BallGenerator, FlatGenerator
from training.build import build
from training.contracts import CameraRig, Condition, Shot
from training.programs.load import load_program, program_names
from training.programs.seeds import class_label, latent, seed_codes
from training.programs.studio import Studio, cast, write_films, write_stills

RIG = CameraRig(radius=2.7, focal=3.0)


def studio(G: torch.nn.Module, noise: str = "const") -> Studio:
    options = replace(G.options_at(0).still(), noise=noise)
    return Studio(
        G=G, rig=RIG, codes=lambda seed: seed_codes(G, seed, Condition()), options=options, device=torch.device("cpu")
    )


def program(name: str, **options: object):
    return build(load_program(name, [(key, str(value)) for key, value in options.items()]), where=name)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_latents_are_those_of_the_references():
    assert torch.equal(latent(7, 512), torch.from_numpy(np.random.RandomState(7).randn(1, 512)).float())


def test_truncation_goes_to_the_mean_in_the_first_rows():
    G = BallGenerator()
    full = seed_codes(G, 3, Condition())
    assert torch.allclose(seed_codes(G, 3, Condition(), psi=0.25).ws, 0.25 * full.ws)
    cut = seed_codes(G, 3, Condition(), psi=0.25, cutoff=1).ws
    assert torch.allclose(cut[:, :1], 0.25 * full.ws[:, :1])
    assert torch.equal(cut[:, 1:], full.ws[:, 1:])
    assert torch.equal(seed_codes(G, 3, Condition(), psi=0.25, cutoff=0).ws, full.ws)


def test_classes_are_one_hot_and_checked():
    assert class_label(0, None) is None
    assert class_label(3, 2).tolist() == [[0, 0, 1]]
    for dim, index, complaint in [
        (0, 1, "without classes"),
        (3, None, "choose one"),
        (3, 3, "0 to 2"),
        (3, -1, "0 to"),
    ]:
        with pytest.raises(ConfigError, match=complaint):
            class_label(dim, index)


def test_random_noise_follows_from_the_seed(tmp_path: Path):
    room = studio(BallGenerator(), noise="random")
    for place, seeds in [("a", [4]), ("b", [1, 4, 4, 9])]:
        write_stills(room, seeds, tmp_path / place)
    assert (pixels(tmp_path / "a/seed0004.png") == pixels(tmp_path / "b/seed0004.png")).all()
    quiet = studio(BallGenerator())
    write_stills(quiet, [4], tmp_path / "c")
    assert (pixels(tmp_path / "a/seed0004.png") != pixels(tmp_path / "c/seed0004.png")).any()


def test_stills_show_the_ball_from_the_mean_camera(tmp_path: Path):
    room = studio(BallGenerator(32))
    write_stills(replace(room, options=replace(room.options, resolution=16)), [0], tmp_path, depth=True)
    image, raw, depth = (pixels(tmp_path / f"seed0000{kind}.png") for kind in ("", "_raw", "_depth"))
    assert image.shape == (32, 32, 3)
    assert raw.shape == (16, 16, 3)
    assert (image[0, 0] == 255).all()  # white around it
    assert image[16, 8, 0] < image[16, 23, 0]  # normals: x to the right,
    assert image[23, 16, 1] < image[8, 16, 1]  # y up
    assert (depth[8, 8] == 255).all()  # nearest in the middle
    assert (depth[0, 0] == 0).all()
    assert depth[8, 8, 0] > depth[8, 10, 0] > depth[8, 11, 0]


@pytest.mark.parametrize("name", [name for name in program_names() if name != "from_file"])
def test_every_program_makes_frames(name: str, tmp_path: Path):
    count = {"rotation_grid": {"columns": 2, "rows": 2}}.get(name, {"frames": 3})
    G = BallGenerator(8)
    write_films(studio(G), program(name, **count), name, [2], tmp_path, video=False)
    frames = [pixels(path) for path in sorted((tmp_path / "seed_000002").glob("*.png"))]
    assert len(frames) == {"rotation_grid": 4, "rotation_camera_grid": 9}.get(name, 3)
    assert len({frame.tobytes() for frame in frames}) > 1
    assert frames[0].shape == (8, 16 if name == "rotation_both" else 8, 3)
    assert G.scenes_built == (3 if name == "interpolation" else 1)


def test_normals_beside_the_image_are_those_of_the_ball(tmp_path: Path):
    G = BallGenerator(64)
    write_films(studio(G), program("rotation_both", frames=2), "rotation_both", [0], tmp_path, video=False)
    frame = pixels(tmp_path / "seed_000000/000.png") / 127.5 - 1
    image, normals = frame[24:40, 24:40], frame[24:40, 88:104]
    tint = 0.5 * torch.tanh(latent(0, 3))[0].numpy()
    assert np.abs(normals - 2 * (image - tint)).max() < 0.12  # 62 pixels of normals are stretched over 64


def test_a_seed_looks_the_same_alone_and_in_a_batch(tmp_path: Path):
    for place, seeds in [("alone", [5]), ("batch", [4, 5, 6])]:
        write_films(studio(BallGenerator()), program("rotation_camera"), "x", seeds, tmp_path / place, video=False)
    for frame in range(8):
        a, b = (pixels(tmp_path / place / f"seed_000005/{frame:03d}.png") for place in ("alone", "batch"))
        assert (a == b).all()


def test_a_grid_shows_its_seeds_row_by_row(tmp_path: Path):
    room, sweep = studio(BallGenerator(8)), program("rotation_camera", frames=2)
    write_films(room, sweep, "rotation_camera", [0, 1, 2, 3, 4, 5], tmp_path, grid=(3, 2), video=False)
    write_films(room, sweep, "rotation_camera", [4], tmp_path, video=False)
    together = pixels(tmp_path / "rotation_camera_0-5/001.png")
    assert together.shape == (16, 24, 3)
    assert (together[8:, 8:16] == pixels(tmp_path / "seed_000004/001.png")).all()


def test_seeds_are_cast_into_films():
    assert cast([1, 2], None, together=False) == [[[1]], [[2]]]
    assert cast([1, 2], None, together=True) == [[[1, 2]]]
    assert cast([1, 2, 3, 4], (2, 1), together=True) == [[[1, 2], [3, 4]]]
    with pytest.raises(ConfigError, match="multiple of that, not 3"):
        cast([1, 2, 3], (2, 1), together=False)


def test_depth_does_not_flicker():
    G = BallGenerator(8)
    screen = studio(G).screen(0, ["depth"])
    codes = BallCodes(ws=torch.zeros(1, 2, 3))
    near, far = (CameraRig(radius=radius, focal=3.0).mean for radius in (2.0, 2.05))
    first, second = (screen.frame(Shot(codes=codes, camera=camera)) for camera in (near, far))
    assert second[4, 4, 0] < first[4, 4, 0]  # farther is darker: both on the first one's scale


def test_a_model_without_camera_renders_stills_and_blends(tmp_path: Path):
    room = studio(FlatGenerator())
    write_stills(room, [0], tmp_path)
    expected = np.clip(latent(0, 3)[0].numpy() * 127.5 + 128, 0, 255).astype(np.uint8)
    assert (pixels(tmp_path / "seed0000.png") == expected).all()
    write_films(room, program("interpolation", frames=2), "interpolation", [0, 1], tmp_path, video=False)
    assert (pixels(tmp_path / "interpolation_0-1/000.png") == expected).all()
    with pytest.raises(ConfigError, match="has no camera"):
        write_films(room, program("orbit"), "orbit", [0], tmp_path / "none")
    with pytest.raises(ConfigError, match="gives no image_raw"):
        write_stills(room, [0], tmp_path / "none", depth=True)
    assert not (tmp_path / "none").exists()


def test_an_unknown_modality_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no modality normal; did you mean normals"):
        write_films(studio(BallGenerator()), program("orbit", modalities="[normal]"), "orbit", [0], tmp_path)


def test_a_failure_leaves_nothing(tmp_path: Path):
    class Breaks(BallGenerator):
        def render(self, scene, camera, options):
            if camera.angles()[0] > 0:
                raise RuntimeError("broken in the middle")
            return super().render(scene, camera, options)

    with pytest.raises(RuntimeError, match="in the middle"):
        write_films(studio(Breaks()), program("rotation_camera"), "x", [0], tmp_path)
    assert list(tmp_path.iterdir()) == []
