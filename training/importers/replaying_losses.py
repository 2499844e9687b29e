"""What the replay of every training loss needs: terms whose values are noted, and the reference's names for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from training.importers.replaying import listed_gradients
from training.phases import Phase
from training.step import Step, Term

BOTH = {"Gboth": ("Gmain", "Greg"), "Dboth": ("Dmain", "Dreg")}  # the reference's phases without lazy regularisation
STATISTICS = {"loss": "Loss/G/loss", "logistic": "Loss/D/loss", "r1": "Loss/D/reg", "path_length": "Loss/G/reg"}
PENALTIES = {"r1": "Loss/r1_penalty", "path_length/penalty": "Loss/pl_penalty"}


@dataclass
class Told:
    """What a phase reports: statistics, and each term's values."""

    statistics: dict[str, Tensor] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)

    def report(self, name: str, values: Tensor) -> None:
        self.statistics[name] = values.detach()

    def phase(self, name: str, terms: Mapping[str, Term]) -> Phase:
        """A phase whose terms note their values here."""
        return Phase(
            name=name, nets=(name[0],), optimizer=name[0], terms={k: _Noted(k, t, self) for k, t in terms.items()}
        )


@dataclass
class _Noted:
    """A term that notes its values."""

    name: str
    term: Term
    told: Told

    @property
    def group(self) -> str:
        return self.term.group

    @property
    def differentiates_images(self) -> bool:
        return getattr(self.term, "differentiates_images", False)

    def __call__(self, step: Step) -> Tensor:
        values = self.term(step)
        assert isinstance(values, Tensor)
        self.told.terms[self.name] = values.detach()
        return values


def layer_noise(mode: Any, call_args: Mapping[str, Any]) -> Any:
    """The layers' noise mode; random noise can be replayed if its draws are replaced by zeros."""
    if mode != "random":
        return mode
    if call_args["draws"].get("layer_noise") != 0:
        raise CheckpointError("Random noise cannot be replayed: the file does not hold what was drawn.")
    return "none"


def results(
    phase: str, told: Told, net: nn.Module, tensors: Mapping[str, Tensor], norm: bool, prefixes: Mapping[str, str]
) -> dict[str, Tensor]:  # fmt: skip
    """Statistics under the reference's names, and the gradients that the phase has left. prefixes: theirs -> ours."""
    made = {}
    for side in ("fake", "real"):
        score = told.statistics.get(f"score/{side}")
        if score is not None:
            made |= {f"Loss/scores/{side}": score, f"Loss/signs/{side}": score.sign()}
    made |= {STATISTICS[name]: values for name, values in told.terms.items() if name in STATISTICS}
    made |= {PENALTIES[name]: values for name, values in told.statistics.items() if name in PENALTIES}
    if norm:
        grads = [p.grad.norm() for p in net.parameters() if p.grad is not None]
        made["grad_norm"] = torch.stack(grads).norm() if grads else torch.zeros(())
    out = {f"out/{phase}/{name}": tensor for name, tensor in made.items()}
    return out | listed_gradients(None, net, tensors, f"grad/{phase}/", prefixes)
