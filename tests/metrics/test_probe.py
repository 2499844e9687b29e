"""The committed probe: its file, and what it reads off heads it has never seen."""

from pathlib import Path

import pytest
import torch

from dnnlib.errors import CheckpointError
from metrics.fid import frechet_distance
from metrics.identity import agreement
from metrics.labels import Confusion
from metrics.probe import WEIGHTS, Probe, ProbeFeatures, TrainedProbe, save_probe
from metrics.stats import Moments
from metrics.turning import degrees_apart
from training.data.critters import RIGS, Critters
from training.losses.probe import gaussian_blur

HELD_OUT = Critters(seed=1, size=2000, resolution=64)


@pytest.fixture(scope="module")
def probe() -> TrainedProbe:
    return TrainedProbe()


def accuracy(probe: Probe, n: int, resolution: int, blurred: bool) -> dict[str, float]:
    """Mean yaw error in degrees, class accuracy and label mIoU on the first n held-out items at their own cameras."""
    errors, right, confusion = [], [], None
    for start in range(0, n, 50):
        items = list(range(start, start + 50))
        view = HELD_OUT.view(items, HELD_OUT.camera(items), resolution)
        image = gaussian_blur(view.image, torch.ones(len(view)), reach=4) if blurred else view.image
        with torch.no_grad():
            seen = probe(image)
        errors.append(degrees_apart(seen.angles()[0], view.camera.angles()[0]))
        right.append(seen.class_logits.argmax(dim=1) == view.kind)
        part = Confusion.of(seen.label_logits.argmax(dim=1, keepdim=True), view.label_map, 7)
        confusion = part if confusion is None else confusion + part
    assert confusion is not None
    return {
        "yaw": torch.cat(errors).mean().item(), "class": torch.cat(right).double().mean().item(),
        "miou": confusion.mean_iou,
    }  # fmt: skip


def accepted(found: dict[str, float], resolution: int) -> bool:
    return found["yaw"] <= 3 and found["class"] >= 0.97 and (resolution < 64 or found["miou"] >= 0.8)


@pytest.mark.parametrize("blurred", [False, True])
@pytest.mark.parametrize("resolution", [32, 64])
def test_probe_is_accepted_on_some_held_out_heads(probe: TrainedProbe, resolution: int, blurred: bool):
    found = accuracy(probe, 100, resolution, blurred)
    assert accepted(found, resolution), found


@pytest.mark.slow
@pytest.mark.parametrize("blurred", [False, True])
@pytest.mark.parametrize("resolution", [32, 64])
def test_probe_is_accepted_on_2000_held_out_heads(probe: TrainedProbe, resolution: int, blurred: bool):
    found = accuracy(probe, 2000, resolution, blurred)
    assert accepted(found, resolution), found


def test_probe_tells_strangers_from_other_views_of_the_same_head(probe: TrainedProbe):
    items = list(range(60))
    views = [HELD_OUT.view(items, RIGS["face"].at(yaw), 64).image for yaw in (-0.3, 0.3)]
    found = agreement(*(probe(view).embedding for view in views))
    assert found["identity_found"] > 0.7  # by chance: 1/60
    assert found["identity_same"] > found["identity_strangers"] + 0.4


def test_features_measure_damage(probe: TrainedProbe):
    """Other heads are near; the more blurred, the farther."""
    items = list(range(80))
    one, other = (HELD_OUT.view(part, HELD_OUT.camera(part), 32).image for part in (items, [i + 80 for i in items]))
    blurred = [gaussian_blur(other, torch.full((80,), sigma), reach=8) for sigma in (0.5, 1.0, 2.0)]
    first, *others = (Moments.of(ProbeFeatures(probe)(images)) for images in (one, other, *blurred))
    distances = [frechet_distance(first, moments) for moments in others]
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]


def test_pictures_of_any_size_are_read(probe: TrainedProbe):
    seen = probe(torch.zeros(2, 3, 128, 96))
    assert seen.label_logits.shape == (2, 7, 128, 96)
    torch.testing.assert_close(seen.embedding.norm(dim=1), torch.ones(2))


def test_probe_is_small():
    assert WEIGHTS.stat().st_size <= 2_000_000


def test_weights_are_read_back_as_they_were_written(tmp_path: Path):
    net = Probe(channels=(4, 4, 4, 4, 4), summary=8, embedding=4, classes=2, labels=3)
    digest = save_probe(net, tmp_path / "p.safetensors")
    again = TrainedProbe(tmp_path / "p.safetensors")
    assert again.sha256 == digest
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(image).label_logits, net(image).label_logits, atol=5e-3, rtol=5e-3)


def test_other_weights_are_not_taken_for_the_committed_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    save_probe(Probe(channels=(4, 4, 4, 4, 4)), tmp_path / "p.safetensors")
    monkeypatch.setattr("metrics.probe.WEIGHTS", tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="not the file this version was committed with"):
        TrainedProbe()


@pytest.mark.parametrize("keep", [0, 100, 1000])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int):
    (tmp_path / "cut.safetensors").write_bytes(WEIGHTS.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors holds no weights of a probe"):
        TrainedProbe(tmp_path / "cut.safetensors")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors cannot be read: No such file"):
        TrainedProbe(tmp_path / "none.safetensors")
