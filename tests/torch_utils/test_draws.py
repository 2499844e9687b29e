"""A draw depends on its name and item, on nothing else."""

import torch

from torch_utils.draws import Draws


def whole(**changes) -> Draws:
    return Draws(**{"seed": 1, "phase": "Gmain", "nimg": 64, "items": range(8), "batch": 8, **changes})


def test_cutting_the_batch_changes_no_draw():
    everything = whole().normal("z", (3,))
    for k in range(2):
        assert torch.equal(whole(items=range(k, 8, 2)).normal("z", (3,)), everything[k::2])


def test_the_order_of_draws_does_not_matter():
    first, second = whole(), whole()
    a, b = first.uniform("a"), first.uniform("b")
    assert torch.equal(second.uniform("b"), b)
    assert torch.equal(second.uniform("a"), a)


def test_every_part_of_the_key_matters():
    reference = whole().normal("z")
    for other in (whole(seed=2), whole(phase="Dmain"), whole(nimg=65), whole().within("mirrored")):
        assert not torch.equal(other.normal("z"), reference)
    assert not torch.equal(whole().normal("y"), reference)


def test_a_draw_per_batch_is_the_same_for_every_part():
    assert torch.equal(whole(items=[0, 2]).uniform("swap", per="batch"), whole(items=[5]).uniform("swap", per="batch"))
    assert whole().uniform("swap", per="batch").shape == ()


def test_neighbours_draw_what_the_previous_item_draws():
    z = whole().normal("z", (2,))
    assert torch.equal(whole().neighbours().normal("z", (2,)), z.roll(1, 0))


def test_recorded_draws_are_put_in_by_full_name():
    recorded = torch.arange(8.0)
    draws = whole(recorded={"fake/swap": recorded})
    assert torch.equal(draws.within("fake").uniform("swap"), recorded)
    assert torch.equal(draws.uniform("swap"), whole().uniform("swap"))
    assert torch.equal(draws.neighbours().within("fake").uniform("swap"), recorded.roll(1))


def test_normal_and_uniform_have_their_moments():
    many = whole(items=range(2000), batch=2000)
    normal, uniform = many.normal("n", (50,)), many.uniform("u", (50,))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert 0 <= uniform.min() < 0.001 < 0.999 < uniform.max() < 1
    assert set(many.integers("i", 3).tolist()) == {0, 1, 2}
