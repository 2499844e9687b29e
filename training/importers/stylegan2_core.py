"""StyleGAN2 as StyleGAN2-ada-pytorch, StyleGAN3 and EG3D release it: generator, discriminator, operators."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.ema import commit_averages
from training.contracts import Condition, GeneratorOutput, RenderOptions
from training.discriminators.stylegan2 import StyleGAN2Discriminator
from training.generators.stylegan2 import StyleCodes, StyleGAN2Generator
from training.importers.replaying import group, listed_gradients, probed, squared_slopes, structured
from training.importers.strict import load_strictly, renamed
from training.importers.stylegan2_ops import replay_bias_act, replay_upfirdn2d
from training.importers.stylegan2_parts import discriminator_arguments, mapping_of, synthesis_of

PREFIXES = {"mapping.": "mapping_network.", "synthesis.": "synthesis_network."}
ADA_CLASSES = ("training.networks.Generator", "training.networks.Discriminator")


def import_network(kind: str, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """StyleGAN2Generator or StyleGAN2Discriminator."""
    builds = {"stylegan2_core_generator": _generator, "stylegan2_core_discriminator": _discriminator}
    if kind not in builds:
        raise CheckpointError(f"A file of the kind {kind!r} has no network.")
    net = builds[kind](state, arguments_of(metadata))
    load_strictly(net, state, PREFIXES if kind == "stylegan2_core_generator" else {})
    return net.eval()


def replay(kind: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    replays = {
        "stylegan2_core_generator": _replay_generator,
        "stylegan2_core_discriminator": _replay_discriminator,
        "stylegan2_core_bias_act": replay_bias_act,
        "stylegan2_core_upfirdn2d": replay_upfirdn2d,
    }
    if kind not in replays:
        raise CheckpointError(f"Files of the kind {kind!r} cannot be replayed yet.")
    return replays[kind](metadata, tensors)


def arguments_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The constructor's arguments with the defaults of the repository that the class stands in.

    StyleGAN2-ada clamps nothing unless told, averages w with 0.995 and nests synthesis_kwargs; StyleGAN3's copy clamps
    at 256, averages with 0.998 and takes them flat.
    """
    arguments = structured(metadata, "init_kwargs")
    arguments |= arguments.pop("synthesis_kwargs", {})
    if metadata.get("class") in ADA_CLASSES:
        arguments = {"conv_clamp": None} | arguments
        arguments["mapping_kwargs"] = {"w_avg_beta": 0.995} | arguments.get("mapping_kwargs", {})
    return arguments


def _generator(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    mapping = mapping_of(group(state, "mapping."), arguments.get("mapping_kwargs", {}))
    return StyleGAN2Generator(mapping=mapping, synthesis=synthesis_of(group(state, "synthesis."), arguments))


def _discriminator(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    last = max(int(name[1:].partition(".")[0]) for name in state if name.startswith("b") and ".conv0." in name)
    embed = state.get("mapping.embed.weight")
    return StyleGAN2Discriminator(
        told=("label",), label_dim=0 if embed is None else embed.shape[1],
        img_channels=state[f"b{last}.fromrgb.weight"].shape[1], **discriminator_arguments(state, arguments),
    )  # fmt: skip


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
