"""StyleGAN2 as StyleGAN2-ada-pytorch, StyleGAN3 and EG3D release it: generator, discriminator, operators."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.ema import commit_averages
from training.contracts import Condition, GeneratorOutput, RenderOptions
from training.discriminators.stylegan2 import StyleGAN2Discriminator
from training.generators.stylegan2 import StyleCodes, StyleGAN2Generator
from training.importers.nvlabs_pickle import PickledNetwork
from training.importers.replaying import group, listed_gradients, probed, squared_slopes, structured
from training.importers.strict import Description, renamed
from training.importers.stylegan2_augment import replay_augment
from training.importers.stylegan2_ops import replay_bias_act, replay_upfirdn2d
from training.importers.stylegan2_parts import (
    discriminator_arguments,
    mapping_node,
    shown_arguments,
    synthesis_node,
    told_arguments,
)
from training.importers.stylegan2_training import replay_losses

PREFIXES = {"mapping.": "mapping_network.", "synthesis.": "synthesis_network."}
ADA_CLASSES = ("training.networks.Generator", "training.networks.Discriminator")


def import_network(kind: str, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """StyleGAN2Generator or StyleGAN2Discriminator."""
    describes = {
        "stylegan2_core_generator": describe_generator,
        "stylegan2_core_discriminator": describe_discriminator,
    }
    if kind not in describes:
        raise CheckpointError(f"A file of the kind {kind!r} has no network.")
    arguments = told_arguments(structured(metadata, "init_kwargs"), ada=metadata.get("class") in ADA_CLASSES)
    return describes[kind](state, arguments).load(state)


def describe(net: PickledNetwork) -> Description | None:
    """What a pickled network is in our terms; None if it is none of StyleGAN2's."""
    if net.class_name == "Generator" and "synthesis.b4.const" in net.state:
        return describe_generator(net.state, shown_arguments(net))
    if net.class_name == "Discriminator" and "b4.conv.weight" in net.state:
        return describe_discriminator(net.state, shown_arguments(net))
    return None


def replay(kind: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    replays = {
        "stylegan2_core_generator": _replay_generator,
        "stylegan2_core_discriminator": _replay_discriminator,
        "stylegan2_core_bias_act": replay_bias_act,
        "stylegan2_core_upfirdn2d": replay_upfirdn2d,
        "stylegan2_core_augment": replay_augment,
        "stylegan2_core_losses": _replay_losses,
    }
    if kind not in replays:
        raise CheckpointError(f"Files of the kind {kind!r} cannot be replayed yet.")
    return replays[kind](metadata, tensors)


def describe_generator(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Description:
    mapping = mapping_node(group(state, "mapping."), arguments.get("mapping_kwargs", {}))
    synthesis = synthesis_node(group(state, "synthesis."), arguments)
    target = "training.generators.stylegan2.StyleGAN2Generator"
    facts = {
        "resolution": synthesis["img_resolution"], "num_channels": synthesis["img_channels"],
        "label_dim": mapping["c_dim"],
    }  # fmt: skip
    return Description({"_target_": target, "mapping": mapping, "synthesis": synthesis}, PREFIXES, facts)


def describe_discriminator(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Description:
    body = discriminator_arguments(state, arguments)
    embed = state.get("mapping.embed.weight")
    facts = {
        "resolution": body["img_resolution"],
        "num_channels": state[f"b{body['img_resolution']}.fromrgb.weight"].shape[1],
        "label_dim": 0 if embed is None else embed.shape[1],
    }
    told = {"told": ["label"], "label_dim": facts["label_dim"], "img_channels": facts["num_channels"]}
    target = "training.discriminators.stylegan2.StyleGAN2Discriminator"
    return Description({"_target_": target, **told, **body}, {}, facts)


def _replay_generator(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    call_args = structured(metadata, "call_args")
    G = import_network("stylegan2_core_generator", metadata, group(tensors, "state/"))
    assert isinstance(G, StyleGAN2Generator)
    made: dict[str, Tensor] = {}
    for call in call_args["calls"]:
        G.train(call["train"])
        read = G.state_dict()[renamed(call["read_state"], PREFIXES)] if call["read_state"] else None
        kept = None if read is None else read.clone()
        if call["method"] == "mapping":
            value = _map(G, call, tensors)
        else:
            if call["noise_mode"] == "random":
                raise CheckpointError("Random noise cannot be replayed: the file does not hold what was drawn.")
            codes = StyleCodes(ws=made[call["ws"]])
            value = G.synthesis(codes, None, RenderOptions(noise=call["noise_mode"])).image
        if read is not None and kept is not None:
            value = read.clone()
            read.copy_(kept)
        made[call["out"]] = value
    value = probed(made, call_args["grad_outputs"], tensors)
    gradients = listed_gradients(value, G, tensors, prefixes=PREFIXES)
    return {f"out/{name}": tensor.detach() for name, tensor in made.items()} | gradients


def _map(G: StyleGAN2Generator, call: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    """The reference's mapping call: take over the mean, repeat, truncate."""
    condition = Condition(label=tensors.get("in/c") if G.mapping_network.c_dim else None)
    codes = G.mapping(tensors["in/z"], condition, bool(call["update_emas"]))
    commit_averages(G)
    psi, cutoff = call["truncation_psi"], call["truncation_cutoff"]
    return codes.ws if psi == 1 else G.mean_codes().lerp(codes, psi, slice(cutoff)).ws


def _replay_discriminator(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    call_args = structured(metadata, "call_args")
    D = import_network("stylegan2_core_discriminator", metadata, group(tensors, "state/"))
    assert isinstance(D, StyleGAN2Discriminator)
    D.train(call_args["train"])
    images = {"img": tensors["in/img"].clone().requires_grad_()}
    told = Condition(label=tensors.get("in/c") if D.c_dim else None)
    score = D(GeneratorOutput(image=images["img"]), told).score
    made = {"logits": score[:, None]} | squared_slopes(score, images, call_args["r1_inputs"])
    gradients = listed_gradients(probed(made, call_args["grad_outputs"], tensors), D, tensors)
    value = probed(made, call_args["grad_r1_outputs"], tensors)
    gradients |= listed_gradients(value, D, tensors, "grad_r1/")
    return {f"out/{name}": tensor.detach() for name, tensor in made.items()} | gradients


def _replay_losses(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arguments, nets = structured(metadata, "init_kwargs"), {}
    for net, kind in (("G", "stylegan2_core_generator"), ("D", "stylegan2_core_discriminator")):
        told = {**metadata, "init_kwargs": json.dumps(arguments[net]), "class": ""}
        nets[net] = import_network(kind, told, group(tensors, f"state/{net}/"))
    return replay_losses(structured(metadata, "call_args"), tensors, nets, arguments["loss"], PREFIXES)
