"""Replay of the augmentation fixtures: many cases in one file, every random number at a stated percentile."""

from collections.abc import Mapping

import torch
from torch import Tensor

from torch_utils.draws import Draws
from torch_utils.ops.upfirdn2d import setup_filter
from training.importers.replaying import structured
from training.layers.augment_colour import wavelet_bands
from training.layers.augment_draws import Augmentations, Dice
from training.layers.augment_geometry import SYM6
from training.layers.augment_pipe import augment


def replay_augment(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """images = the pipe on images; dx: gradient of sum(images * probe); the pipe's filters."""
    call_args, filters = structured(metadata, "call_args"), {"Hz_geom": setup_filter(SYM6), "Hz_fbank": wavelet_bands()}
    made = {name: filters[name] for name in call_args["filter_outputs"]}
    for case in call_args["cases"]:
        key, settings = case["key"], Augmentations(**case["augment_kwargs"])
        x = tensors[f"in/{key}/images"].clone().requires_grad_()
        noise = {"noise": tensors[f"in/{key}/noise"]} if f"in/{key}/noise" in tensors else {}
        draws = Draws(seed=0, items=range(len(x)), recorded=noise)
        y = augment(x, settings, Dice(draws, case.get("p", call_args["p"]), case["debug_percentile"]), draws)
        (slope,) = torch.autograd.grad((y * tensors[f"in/{key}/probe"]).sum(), x)
        made |= {f"{key}/images": y, f"{key}/dx": slope}
    return {f"out/{name}": tensor.detach() for name, tensor in made.items()}
