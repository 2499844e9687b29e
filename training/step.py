"""One micro-batch of one phase, as losses see it, and what a loss is."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from torch_utils.record import alternate
from training.contracts import (
    Batch,
    Codes,
    Condition,
    Critic,
    DiscriminatorOutput,
    Draws,
    GeneratorOutput,
    Inputs,
    RenderOptions,
    SceneGenerator,
)  # fmt: skip

T = TypeVar("T")


class Step:
    """One micro-batch of one phase: what terms may look at. Passes are made on demand and shared by a group."""

    def __init__(
        self, *, nets: Mapping[str, Any], batch: Batch, inputs: Inputs, draws: Draws, nimg: int,
        critics: Mapping[str, Critic], update_emas: bool = False,
        report: Callable[[str, Tensor], None] = lambda name, values: None,
    ) -> None:  # fmt: skip
        self.nets, self.batch, self.inputs, self.draws, self.nimg = nets, batch, inputs, draws, nimg
        self.critics, self.update_emas, self.report = critics, update_emas, report
        self.leaves = False  # whether real() gives leaves to differentiate by; the runner sets it for each group
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of make(), remembered until the backward pass of the group that asked for it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def forget(self) -> None:
        """Drop all passes, so that the graph of one backward group is freed before the next is made."""
        self._made.clear()

    def options(self, scope: str, net: str = "G") -> RenderOptions:
        """The generator's scheduled options with draws of their own for the pass named scope."""
        options = self.nets[net].options_at(self.nimg).using(self.draws.within(scope))
        return options if self.inputs.patch is None else replace(options, patch=self.inputs.patch)

    def codes(self, net: str = "G") -> Any:
        """mapping() of the inputs; styles mixed in, if the draw says so, are told what critics are told (EG3D)."""

        def make() -> Codes:
            mapping, inputs = self.nets[net].mapping, self.inputs
            codes = mapping(inputs.z, inputs.condition, self.update_emas)
            if inputs.mixing is None:
                return codes
            z, first = inputs.mixing
            return codes.mix(mapping(z, inputs.told), slice(first, None))

        return self.once(("codes", net), make)

    def scene(self, net: str = "G") -> Any:
        """The scene of the inputs, of which fake() is a view."""
        return self.once(("scene", net), lambda: self.nets[net].scene(self.codes(net), self.options("fake", net)))

    def fake(self, net: str = "G") -> Any:
        """The pictures of the inputs."""

        def make() -> GeneratorOutput:
            G, camera, options = self.nets[net], self.inputs.camera, self.options("fake", net)
            if camera is not None and isinstance(G, SceneGenerator):
                return G.render(self.scene(net), camera, options)
            return G.synthesis(self.codes(net), camera, options)

        return self.once(("fake", net), make)

    def real(self, critic: str = "D", net: str = "G") -> GeneratorOutput:
        """The batch as the critic wants to see it."""

        def make() -> GeneratorOutput:
            real = self.critics[critic].real(self.batch, self.options("real", net), self.nimg)
            return real.map(lambda t: t.detach().requires_grad_()) if self.leaves else real

        return self.once(("real", critic), make)

    def seen(self, output: GeneratorOutput, scope: str, critic: str = "D") -> GeneratorOutput:
        """What the critic's net is shown of the pass named scope; scope also names the augmentation's draws."""
        make = lambda: self.critics[critic].look(output, self.nimg, self.draws.within(scope))  # noqa: E731
        return self.once(("seen", critic, scope), make)

    def score(self, output: GeneratorOutput, told: Condition, scope: str, critic: str = "D") -> DiscriminatorOutput:
        """What the critic says of the pass named scope, asked once."""
        sees, draws = self.critics[critic], self.draws.within(scope)

        def make() -> DiscriminatorOutput:
            return self.nets[sees.net](self.seen(output, scope, critic), sees.told(told, draws), draws)

        return self.once(("score", critic, scope), make)

    def score_real(self, critic: str = "D", net: str = "G") -> DiscriminatorOutput:
        """What the critic says of the batch; it is told so."""

        def make() -> DiscriminatorOutput:
            real = self.score(self.real(critic, net), self.batch.condition, "real", critic)
            self.critics[critic].hear(real.score)
            return real

        return self.once(("score real", critic), make)

    def score_both(self, critic: str = "D", net: str = "G") -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """What the critic says of the fakes, without a gradient for them, and of the reals.

        They alternate in one pass if the critic's net has a method alternates(count) which says that `count` of each
        get the same scores so: one pass costs less than two.
        """
        judge, fake, told = self.nets[self.critics[critic].net], self.fake(net).detach(), self.inputs.told
        if not (hasattr(judge, "alternates") and judge.alternates(len(fake))):
            return self.score(fake, told, "fake", critic), self.score_real(critic, net)

        def make() -> DiscriminatorOutput:
            reals = self.seen(self.real(critic, net), "real", critic)
            both = alternate(self.seen(fake, "fake", critic), reals)
            sees, scopes = self.critics[critic], [self.draws.within(scope) for scope in ("fake", "real")]
            conditions = [sees.told(*pair) for pair in zip((told, self.batch.condition), scopes, strict=True)]
            both = judge(both, alternate(*conditions))
            sees.hear(both.score[1::2])
            return both

        both = self.once(("score both", critic), make)
        return both[0::2], both[1::2]


@runtime_checkable
class Keeping(Protocol):
    """A term, or what a critic does, that keeps something from one iteration to the next. The run's state holds it."""

    def end_iteration(self, iteration: int, batch: int, all_reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Take over what this iteration has brought; all ranks do so alike. iteration counts from 1, batch is that of
        all ranks, all_reduce sums over them. Returns what there is to report, by name."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Term(Protocol):
    """One loss. It returns a value per image, or (values, weights) for a mean weighted within the micro-batch.

    Terms of a phase with the same `group` share passes and one backward; others follow after it, which saves memory.
    A term with a true `differentiates_images` gets real images that are leaves.
    """

    @property
    def group(self) -> str: ...

    def __call__(self, step: Step) -> Tensor | tuple[Tensor, Tensor]: ...
