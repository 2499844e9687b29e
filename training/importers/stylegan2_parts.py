"""The parts that StyleGAN2 and all its descendants release, sized by their tensors.

Each function takes the tensors of one part under the names of StyleGAN2-ada ("fc0.weight", "b4.const" ...) and the
reference's constructor arguments, of which it reads only what shapes do not tell.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dnnlib.errors import CheckpointError
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import SynthesisNetwork


def mapping_of(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> MappingNetwork:
    """A mapping network to load these tensors into. Reads activation, lr_multiplier, w_avg_beta (0.998)."""
    num_layers = sum(bool(re.fullmatch(r"fc\d+\.weight", name)) for name in state)
    if num_layers == 0:
        raise CheckpointError("The mapping network has no layer fc0.weight.")
    embedded, c_dim = state["embed.weight"].shape if "embed.weight" in state else (0, 0)
    first, last = state["fc0.weight"], state[f"fc{num_layers - 1}.weight"]
    return MappingNetwork(
        z_dim=first.shape[1] - embedded, c_dim=c_dim, w_dim=last.shape[0], num_layers=num_layers,
        embed_features=embedded, layer_features=first.shape[0],
        w_avg_beta=arguments.get("w_avg_beta", 0.998) if "w_avg" in state else None,
        **_given(arguments, "activation", "lr_multiplier"),
    )  # fmt: skip


def synthesis_of(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> SynthesisNetwork:
    """A synthesis network to load these tensors into. Reads activation and conv_clamp (256)."""
    resolutions = _resolutions(state, "conv1.weight")
    last = resolutions[-1]
    architecture = "orig"
    if last > 4:
        architecture = "skip" if "b4.torgb.weight" in state else "resnet" if "b8.skip.weight" in state else "orig"
    return SynthesisNetwork(
        w_dim=state["b4.conv1.affine.weight"].shape[1], img_resolution=last,
        img_channels=state[f"b{last}.torgb.weight"].shape[0], architecture=architecture,
        channels={r: state[f"b{r}.conv1.weight"].shape[0] for r in resolutions},
        resample_filter=state[f"b{last}.resample_filter"].tolist(), use_noise="b4.conv1.noise_const" in state,
        conv_clamp=arguments.get("conv_clamp", 256), **_given(arguments, "activation"),
    )  # fmt: skip


def discriminator_arguments(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a DiscriminatorBody to load these tensors into, but for c_dim and img_channels.

    Reads conv_clamp (256), and from block_kwargs, epilogue_kwargs, mapping_kwargs: activation, freeze_layers,
    mbstd_group_size, activation and lr_multiplier of the mapping.
    """
    resolutions = _resolutions(state, "conv0.weight")
    last, head = resolutions[-1], state["b4.conv.weight"]
    embed = state.get("mapping.embed.weight")
    block, epilogue = arguments.get("block_kwargs", {}), arguments.get("epilogue_kwargs", {})
    mapping = arguments.get("mapping_kwargs", {})
    how = _given(mapping, "activation", "lr_multiplier")
    if embed is not None:
        how |= {
            "num_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            "embed_features": embed.shape[0], "layer_features": state["mapping.fc0.weight"].shape[0],
        }  # fmt: skip
    resnet = f"b{last}.skip.weight" in state
    return {
        "img_resolution": last,
        "architecture": "skip" if "b4.fromrgb.weight" in state else "resnet" if resnet else "orig",
        "channels": {4: head.shape[0]} | {r: state[f"b{r}.conv0.weight"].shape[0] for r in resolutions},
        "cmap_dim": None if embed is None else state["b4.out.weight"].shape[0],
        "mbstd_num_channels": head.shape[1] - head.shape[0],
        "resample_filter": state[f"b{last}.resample_filter"].tolist(),
        "conv_clamp": arguments.get("conv_clamp", 256),
        "mapping": how,
        **_given(block, "activation", "freeze_layers"),
        **_given(epilogue, "mbstd_group_size"),
        "head_activation": epilogue.get("activation", "lrelu"),  # the blocks' does not reach it
    }


def _resolutions(state: Mapping[str, Tensor], layer: str) -> list[int]:
    found = [re.fullmatch(rf"b(\d+)\.{re.escape(layer)}", name) for name in state]
    resolutions = sorted(int(match[1]) for match in found if match)
    if not resolutions:
        raise CheckpointError(f"There is no block: no tensor is named like b4.{layer}.")
    return resolutions


def _given(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: arguments[name] for name in names if name in arguments}
