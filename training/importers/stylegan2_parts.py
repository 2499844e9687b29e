"""The parts that StyleGAN2 and all its descendants release, as nodes sized by their tensors.

Each function takes the tensors of one part under the names of StyleGAN2-ada ("fc0.weight", "b4.const" ...) and the
reference's constructor arguments, of which it reads only what shapes do not tell. Nodes are what training.build takes,
plain enough for the configuration of a snapshot.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dnnlib.errors import CheckpointError
from training.importers.nvlabs_pickle import PickledNetwork

GENERATOR_SHOWS = {"conv_clamp": "synthesis.b4.conv1.conv_clamp", "w_avg_beta": "mapping.w_avg_beta"}


def told_arguments(given: Mapping[str, Any], ada: bool = False) -> dict[str, Any]:
    """A constructor's arguments, those of the synthesis network beside the others.

    StyleGAN2-ada alone nests these; its networks clamp nothing unless told, and average w with 0.995.
    """
    arguments = {**given}
    ada |= "synthesis_kwargs" in arguments
    arguments |= arguments.pop("synthesis_kwargs", {})
    if ada:
        arguments = {"conv_clamp": None} | arguments
        arguments["mapping_kwargs"] = {"w_avg_beta": 0.995} | arguments.get("mapping_kwargs", {})
    return arguments


def shown_arguments(net: PickledNetwork, prefix: str = "") -> dict[str, Any]:
    """told_arguments() of a pickled network, corrected by what its layers hold: defaults differ between repositories.

    prefix: of a generator's parts; a discriminator has no synthesis network and shows its own clamp.
    """
    arguments = told_arguments(net.kwargs)
    shown = {name: prefix + place for name, place in GENERATOR_SHOWS.items()}
    first = next((name for name in net.state if re.fullmatch(r"b\d+\.conv0\.weight", name)), "")
    shown |= {"conv_clamp": first.replace("weight", "conv_clamp")} if first else {}
    seen = {name: net.attributes[place] for name, place in shown.items() if place in net.attributes}
    if "w_avg_beta" in seen:
        arguments["mapping_kwargs"] = {**arguments.get("mapping_kwargs", {}), "w_avg_beta": seen.pop("w_avg_beta")}
    return arguments | seen


def mapping_node(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping network to load these tensors into. Reads activation, lr_multiplier, w_avg_beta (0.998)."""
    num_layers = sum(bool(re.fullmatch(r"fc\d+\.weight", name)) for name in state)
    if num_layers == 0:
        raise CheckpointError("The mapping network has no layer fc0.weight.")
    embedded, c_dim = _shape(state, "embed.weight", 2) if "embed.weight" in state else (0, 0)
    hidden, inputs = _shape(state, "fc0.weight", 2)
    return {
        "_target_": "training.layers.mapping.MappingNetwork",
        "z_dim": inputs - embedded, "c_dim": c_dim, "w_dim": _shape(state, f"fc{num_layers - 1}.weight", 2)[0],
        "num_layers": num_layers, "embed_features": embedded, "layer_features": hidden,
        "w_avg_beta": arguments.get("w_avg_beta", 0.998) if "w_avg" in state else None,
        **_given(arguments, "activation", "lr_multiplier"),
    }  # fmt: skip


def synthesis_node(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A synthesis network to load these tensors into. Reads activation and conv_clamp (256)."""
    resolutions = _resolutions(state, "conv1.weight")
    last = resolutions[-1]
    architecture = "orig"
    if last > 4:
        architecture = "skip" if "b4.torgb.weight" in state else "resnet" if "b8.skip.weight" in state else "orig"
    return {
        "_target_": "training.layers.synthesis.SynthesisNetwork",
        "w_dim": _shape(state, "b4.conv1.affine.weight", 2)[1], "img_resolution": last,
        "img_channels": _shape(state, f"b{last}.torgb.weight", 4)[0], "architecture": architecture,
        "channels": {r: _shape(state, f"b{r}.conv1.weight", 4)[0] for r in resolutions},
        "resample_filter": taps(state, f"b{last}.resample_filter"), "use_noise": "b4.conv1.noise_const" in state,
        "conv_clamp": arguments.get("conv_clamp", 256), **_given(arguments, "activation"),
    }  # fmt: skip


def discriminator_arguments(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a DiscriminatorBody to load these tensors into, but for c_dim and img_channels.

    Reads conv_clamp (256), and from block_kwargs, epilogue_kwargs, mapping_kwargs: activation, freeze_layers,
    mbstd_group_size, activation and lr_multiplier of the mapping.
    """
    resolutions = _resolutions(state, "conv0.weight")
    last, head = resolutions[-1], _shape(state, "b4.conv.weight", 4)
    block, epilogue = arguments.get("block_kwargs", {}), arguments.get("epilogue_kwargs", {})
    mapping = arguments.get("mapping_kwargs", {})
    how, told = _given(mapping, "activation", "lr_multiplier"), "mapping.embed.weight" in state
    if told:
        how |= {
            "num_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            "embed_features": _shape(state, "mapping.embed.weight", 2)[0],
            "layer_features": _shape(state, "mapping.fc0.weight", 2)[0],
        }
    resnet = f"b{last}.skip.weight" in state
    return {
        "img_resolution": last,
        "architecture": "skip" if "b4.fromrgb.weight" in state else "resnet" if resnet else "orig",
        "channels": {4: head[0]} | {r: _shape(state, f"b{r}.conv0.weight", 4)[0] for r in resolutions},
        "cmap_dim": _shape(state, "b4.out.weight", 2)[0] if told else None,
        "mbstd_num_channels": max(head[1] - head[0], 0),
        "resample_filter": taps(state, f"b{last}.resample_filter"),
        "conv_clamp": arguments.get("conv_clamp", 256),
        "mapping": how,
        **_given(block, "activation", "freeze_layers"),
        **_given(epilogue, "mbstd_group_size"),
        "head_activation": epilogue.get("activation", "lrelu"),  # the blocks' does not reach it
    }


def taps(state: Mapping[str, Tensor], name: str) -> list[Any]:
    """A resampling filter as plain numbers."""
    if name not in state or state[name].numel() > 1024:
        raise CheckpointError(f"There is no filter {name}.")
    return state[name].tolist()


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != axes:
        raise CheckpointError(f"There is no tensor {name} of {axes} axes.")
    return tuple(state[name].shape)


def _resolutions(state: Mapping[str, Tensor], layer: str) -> list[int]:
    found = [re.fullmatch(rf"b(\d{{1,5}})\.{re.escape(layer)}", name) for name in state]
    resolutions = sorted(int(match[1]) for match in found if match)
    if not resolutions:
        raise CheckpointError(f"There is no block: no tensor is named like b4.{layer}.")
    return resolutions


def _given(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: arguments[name] for name in names if name in arguments}
