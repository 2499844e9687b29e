"""null where a number stands by default: EG3D's rays that begin and end at the field's box."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tests.tiny import TINY
from tests.trainer import config_of, run
from training import loop
from training.build import check_arguments, find_class
from training.cli import main
from training.cli.keys import OPTIONAL
from training.rendering.hierarchical import RaySettings
from training.rendering.rays import image_rays
from training.snapshot import open_generator


def numbers_that_may_be_null(node: Any, where: str) -> set[str]:
    """The arguments of all classes in a configuration that are numbers there and may be None."""
    if not isinstance(node, dict):
        return set()
    found = set[str]().union(*(numbers_that_may_be_null(inner, f"{where}.{key}") for key, inner in node.items()))
    if "_target_" in node:
        arguments = {key: value for key, value in node.items() if key != "_target_"}
        takes = check_arguments(find_class(node["_target_"], where), arguments, ("params",), where)
        numbers = {key for key, value in arguments.items() if type(value) in (int, float) and key in takes}
        found |= {key for key in numbers if type(None) in get_args(takes[key].annotation)}
    return found


def test_null_is_taken_where_a_class_takes_it():
    config = config_of("model=eg3d_ffhq")
    found = numbers_that_may_be_null({node: config[node] for node in ("nets", "phases", "critics", "rig")}, "")
    assert found == {*OPTIONAL} - {"rampup", "ema_rampup"}  # those are of averages, whose class is not chosen
    for key in ("nets.G.mapping.num_ws", "nets.D.mbstd_group_size", "phases.Gmain.draw.probability"):
        node: Any = config_of("model=eg3d_ffhq", f"{key}=null")
        for part in key.split("."):
            node = node[part]
        assert node is None
    assert config_of("spec.ema_rampup=null")["emas"]["G_ema"]["rampup"] is None


@pytest.mark.parametrize("word", ["model.near=null", "model.far=null", "nets.G.rays.near=null"])
def test_one_end_alone_is_told(word: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run("model=eg3d", "spec=tiny", word, outdir=tmp_path / "out")[0] == 2
    assert "nets.G.rays: near and far of a ray are both numbers, or both null" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rays_from_box_to_box_train(tmp_path: Path):
    words = ["model=eg3d", "spec=tiny", *TINY, "batch_gpu=8", "kimg=0.016", "samples.latents=1"]
    assert main([*words, "model.near=null", "model.far=null", f"outdir={tmp_path}"], loop.train) == 0
    (folder,) = tmp_path.iterdir()
    network = open_generator(str(folder), "cpu")
    assert network.nimg == 16
    rays = image_rays(network.rig.mean, 8)
    near, far = network.G.rays.range(rays, network.G.field.box_side)
    hit = far > near
    ends = rays.at(torch.stack([near, far], dim=-1)).abs().amax(dim=-1)  # on a face of the box of side 1
    assert hit.any()
    torch.testing.assert_close(ends[hit], torch.full_like(ends[hit], 0.5))
    fixed = RaySettings().range(rays, 1.0)
    assert (near[hit] - fixed[0][hit]).abs().min() > 1e-4
    assert near.unique().numel() > fixed[0].unique().numel() == 1
