"""Numbers are refused by the name of what they set, with the path that a person knows."""

import pytest

from dnnlib.errors import ConfigError, DataError
from dnnlib.limits import LENGTHS, LIMITS, check_numbers

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "where", "told"),
    [
        (0, "kimg", "kimg=0 must be a finite number above 0."),
        (NAN, "gamma", "gamma=nan must be a finite number of at least 0."),
        (INF, "tick", "tick=inf must be a finite number above 0."),
        (-INF, "nobody.knows.this", "nobody.knows.this=-inf must be a finite number."),
        (2**32, "seed", "seed=4294967296 must be a whole number from 0 to 4294967295."),
        (10**400, "batch", "must be a whole number from 1 to 10000000."),
        (2.5, "phases.Dreg.every", "phases.Dreg.every=2.5 must be a whole number from 1 to 10000000."),
        (1.5, "model.swap_probability", "swap_probability=1.5 must be a finite number from 0 to 1."),
        (0, "model.raw_resolution", "model.raw_resolution=0 must be a whole number from 1 to 8192."),
        (2**20, "resolution", "resolution=1048576 must be a whole number from 1 to 8192."),
        ([1, 2], "rig.pivot", r"rig.pivot=[1, 2] must be 3 numbers."),
        ([], "samples.yaws", "samples.yaws=[] must be some numbers."),
        ([0.5, "a"], "samples.yaws", "samples.yaws=[0.5, 'a']: a is no number."),
        ([0.5, NAN], "samples.yaws", "samples.yaws.1=nan must be a finite number."),
        ([8, 2.5], "model.samples", "model.samples.1=2.5 must be a whole number from 0 to 4096."),
        ({"a": {"b": [{"lr": -1}]}}, "nets.G", "nets.G.a.b.0.lr=-1 must be a finite number of at least 0."),
    ],
)
def test_what_is_out_of_its_limits_is_named_by_its_path(value, where: str, told: str):
    with pytest.raises(ConfigError) as caught:
        check_numbers(value, where)
    assert str(caught.value).endswith(told)


def test_the_shortest_path_is_named_first():
    config = {"nets": {"G": {"widths": [0]}}, "spec": {"channel_max": 0}, "text": "nan"}
    with pytest.raises(DataError, match=r"^spec\.channel_max=0 "):
        check_numbers(config, "", DataError)


def test_what_is_no_number_is_let_through():
    check_numbers({"kimg": "1", "spec": {"size": "tiny"}, "cond": True, "subset": None, "every": 1.0, "x": [None]}, "")


def test_the_ends_of_a_range_belong_to_it():
    for name, limit in LIMITS.items():
        for end in (limit.least, limit.most):
            if abs(end) < INF and not (limit.above and end == limit.least):
                check_numbers({name: end, "inside": {name: [end] * LENGTHS.get(name, 1)}}, "")
