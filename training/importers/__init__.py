"""Released weights and parity fixtures under our names: one file a family, found by the prefix of the kind.

A family's module has import_network() and replay() as below; `kind` says which of its networks, losses or operators is
meant. Where released files are pickles it also has describe(net: PickledNetwork) -> Description | None.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from torch import Tensor, nn

from dnnlib.errors import CheckpointError


def import_network(kind: str, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """The network whose reference state is given, in our own class, in eval mode.

    metadata: the file's strings (init_kwargs, class, source, call_args ... as JSON). state: tensors under the
    reference's own names. Sizes are read off the tensors; metadata says the rest. Raises CheckpointError naming each
    tensor without a place and each place without a tensor.
    """
    return family_of(kind).import_network(kind, metadata, state)


def replay(kind: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A fixture's "out/...", "grad/..." ... recomputed with our code, from its metadata and the rest of its tensors."""
    return family_of(kind).replay(kind, metadata, tensors)


def family_of(kind: str) -> ModuleType:
    """The module with the longest name that the kind starts with. Others are not even imported."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    fitting = [name for name in names if kind == name or kind.startswith(name + "_")]
    if not fitting:
        raise CheckpointError(
            f"There is no importer for the kind {kind!r}: is it a file of one of the supported models?"
        )
    return importlib.import_module(f"{__name__}.{max(fitting, key=len)}")
