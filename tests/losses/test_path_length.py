"""Path length and style mixing, on a generator whose every derivative is known."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from training.contracts import Batch, Codes, Condition, Draws, GeneratorOutput, Inputs, RenderOptions
from training.losses.draws import LatentAndLabel
from training.losses.path_length import PathLength
from training.step import Step

N, ROWS, W = 4, 3, 5


@dataclass(frozen=True, kw_only=True)
class Rows(Codes):
    rows: ClassVar[tuple[str, ...]] = ("ws",)
    ws: Tensor


class Linear(nn.Module):
    """The image is a linear function of the style vectors; a scale of them is what there is to learn."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.map = torch.randn(ROWS * W, 3 * 4 * 4, generator=generator)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def mapping(self, z: Tensor, condition: Condition, update_emas: bool = False) -> Rows:
        return Rows(ws=z[:, None].expand(-1, ROWS, -1) * torch.ones((), requires_grad=True))

    def mean_codes(self) -> Rows:
        return Rows(ws=torch.zeros(1, ROWS, W))

    def options_at(self, nimg: int) -> RenderOptions:
        return RenderOptions()

    def synthesis(self, codes: Rows, camera, options: RenderOptions) -> GeneratorOutput:
        image = self.scale * codes.ws.flatten(1) @ self.map
        return GeneratorOutput(image=image.reshape(-1, 3, 4, 4))


def step_of(G: nn.Module, y: Tensor) -> Step:
    draws = Draws(seed=0, items=range(N), batch=N, recorded={"path_length": y})
    batch = Batch(image=torch.zeros(N, 3, 4, 4), condition=Condition())
    inputs = Inputs(z=torch.randn(N, W))
    return Step(nets={"G": G}, batch=batch, inputs=inputs, draws=draws, nimg=0, critics={})


def lengths_of(G: Linear, y: Tensor) -> Tensor:
    """|J^T y| by hand."""
    slopes = (y.flatten(1) / 4 @ G.map.T).reshape(N, ROWS, W)
    return slopes.square().sum(2).mean(1).sqrt()


def test_it_is_the_squared_distance_from_the_mean_length():
    G, y, term = Linear(), torch.randn(N, 3, 4, 4), PathLength(weight=3, decay=0.25)
    lengths = lengths_of(G, y)
    penalty = term(step_of(G, y))
    assert torch.allclose(penalty, 3 * (lengths - 0.25 * lengths.mean()).square(), rtol=1e-5)
    penalty.mean().backward()
    # all lengths are proportional to the scale, so the penalty grows with its square
    assert G.scale.grad is not None
    assert torch.allclose(G.scale.grad, 2 * penalty.mean(), rtol=1e-5)


def test_the_mean_moves_once_an_iteration_towards_all_lengths():
    G, term = Linear(), PathLength(decay=0.5)
    first, second = torch.randn(2, N, 3, 4, 4)
    term(step_of(G, first))
    term(step_of(G, second))
    both = torch.cat([lengths_of(G, first), lengths_of(G, second)]).mean()
    assert term.mean == 0
    term.end_iteration(1, N, lambda t: t)
    assert torch.allclose(term.mean, both / 2, rtol=1e-5)
    term.end_iteration(2, N, lambda t: t)
    assert torch.allclose(term.mean, both / 2, rtol=1e-5)
    other = PathLength(decay=0.5)
    other.load_state_dict(term.state_dict())
    assert torch.equal(other.mean, term.mean)


def test_a_bad_step_leaves_the_mean_as_it_is():
    G, term = Linear(), PathLength(decay=0.5)
    term(step_of(G, torch.full((N, 3, 4, 4), torch.nan)))
    term.end_iteration(1, N, lambda t: t)
    assert term.mean == 0
    y = torch.randn(N, 3, 4, 4)
    term(step_of(G, y))
    term.end_iteration(2, N, lambda t: t)
    assert torch.allclose(term.mean, lengths_of(G, y).mean() / 2, rtol=1e-5)


def drawn(seed: int, mixing: float) -> Inputs:
    batch = Batch(image=torch.zeros(N, 3, 4, 4), condition=Condition())
    return LatentAndLabel(W, mixing)(batch, Draws(seed=seed, items=range(N), batch=N), 0, {"G": Linear()})


def test_styles_are_mixed_as_often_as_asked_from_every_row_but_the_first():
    mixed = [drawn(seed, 0.7).mixing for seed in range(400)]
    assert sum(m is not None for m in mixed) / 400 == pytest.approx(0.7, abs=0.07)
    assert {m[1] for m in mixed if m is not None} == set(range(1, ROWS))
    assert drawn(0, 0.0).mixing is None


def test_mixed_rows_come_from_the_second_latent():
    inputs = next(found for seed in range(20) if (found := drawn(seed, 0.9)).mixing is not None)
    G = Linear()
    step = Step(
        nets={"G": G}, batch=Batch(image=torch.zeros(N, 3, 4, 4), condition=Condition()), inputs=inputs,
        draws=Draws(seed=0, items=range(N), batch=N), nimg=0, critics={},
    )  # fmt: skip
    ws, mixing = step.codes().ws, inputs.mixing
    assert mixing is not None
    assert inputs.z is not None
    assert torch.equal(ws[:, : mixing[1]], inputs.z[:, None].expand(-1, mixing[1], -1))
    assert torch.equal(ws[:, mixing[1] :], mixing[0][:, None].expand(-1, ROWS - mixing[1], -1))
