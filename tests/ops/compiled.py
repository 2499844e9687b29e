"""What the tests of compiled operators share."""

from contextlib import contextmanager

import torch


@contextmanager
def threads(count):
    """torch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def within(found, expected, tolerance):
    """Their difference is at most so much of what is expected."""
    assert found.shape == expected.shape
    assert (found.double() - expected).norm() <= tolerance * expected.norm()
