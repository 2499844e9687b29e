"""The device that a command line names."""

import torch

from dnnlib.errors import ConfigError


def choose_device(name: str | None) -> torch.device:
    """The named device, by default a GPU where there is one. Raises ConfigError if it cannot compute."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"device {name} cannot be used: write cpu, cuda, or cuda:1 for the second GPU")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device
