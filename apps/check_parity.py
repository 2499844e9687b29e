"""Recompute parity fixtures with our code and compare every tensor with the reference's.

Of a manifest, which has no values, compare the name and shape of every tensor with those of our networks.

python apps/check_parity.py FILE...
Exit status: 0 if all agree, 1 if any tensor does not or is not replayed, 2 if a file cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import safetensors
from torch import Tensor

from dnnlib.errors import CheckpointError, UserError
from training.importers import replay
from training.importers.bounds import Verdict, compare, replayed_names
from training.importers.manifests import check_manifest, is_manifest


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors. These are cloned: their alignment in the file can change a convolution's last bits."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}.") from None
    if "kind" not in metadata:
        raise CheckpointError(f"{path} is no parity fixture: its metadata have no kind.")
    return metadata, tensors


def judged(metadata: dict[str, str], tensors: dict[str, Tensor]) -> tuple[list[Verdict], bool]:
    """A verdict per tensor, and whether there was anything to judge by."""
    ours: dict[str, Tensor] | None = None
    try:
        if is_manifest(metadata["kind"]):
            return check_manifest(metadata["kind"], metadata, tensors), True
        ours = replay(metadata["kind"], metadata, tensors)
    except UserError as error:
        print(f"  {error}")
    found = ours or {}
    verdicts = [compare(name, found.get(name), tensors[name], metadata) for name in replayed_names(tensors)]
    return verdicts, ours is not None


def check(path: Path) -> bool:
    """Print a line per tensor; True if all agree."""
    metadata, tensors = read(path)
    print(f"{path.name}: {metadata['kind']}")
    verdicts, judgeable = judged(metadata, tensors)
    for v in verdicts:
        told = v.note or f"error {v.error:.1e}  bound {v.bound:.1e}"
        print(f"  {v.name:<60} {told:<34} {'ok' if v.passed else 'FAILED'}")
    failed = [v.name for v in verdicts if not v.passed]
    print(f"  {len(verdicts) - len(failed)} of {len(verdicts)} tensors agree")
    for name in failed:
        print(f"  failed: {name}")
    return judgeable and not failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a fixture (.safetensors)")
    agreed, readable = True, True
    for path in parser.parse_args(arguments).files:
        try:
            agreed &= check(path)
        except UserError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            readable = False
    return 2 if not readable else 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
