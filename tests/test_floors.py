"""Imports run strictly downward (docs/contracts.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [  # longest prefix wins
    ("run_train", 6), ("generate", 6), ("apps", 6),
    ("training.loop", 5), ("training.phases", 5), ("training.snapshot", 5), ("training.build", 5), ("training.cli", 5),
    ("training.importers", 5), ("training.transfer", 5), ("training.setup", 5), ("training.state", 5),
    ("training.reporting", 5), ("training.measuring", 5), ("training.timing", 5), ("training.ranks", 5),
    ("training.generators", 4), ("training.discriminators", 4), ("training.encoders", 4), ("training.losses", 4),
    ("training.augment", 4), ("training.data", 4), ("training.programs", 4),
    ("training.contracts", 3), ("training.step", 3), ("training.rendering", 3), ("training.layers", 3), ("metrics", 3),
    ("training.schedules", 3), ("torch_utils", 2), ("dnnlib", 1),
]  # fmt: skip
OWN_PACKAGE = {1, 2, 3, 5}  # on these floors a file may see its own package,
FAMILIES = {"training.data", "training.programs"}  # and so may the files of these plug-ins
TOP_OF_FLOOR_3 = {"training.contracts": "training.rendering.", "training.step": "training.contracts."}
FIRST_PARTY = ("apps", "dnnlib", "generate", "metrics", "run_train", "torch_utils", "training")


def floor(module: str) -> int | None:
    found = [n for prefix, n in FLOORS if module == prefix or module.startswith(prefix + ".")]
    return found[0] if found else None


def package(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "training" and len(parts) > 2 else parts[0]


def imports(module: str, path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            parent = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [parent, node.module]))
            names += [f"{source}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in FIRST_PARTY]


def allowed(importer: str, imported: str) -> bool:
    here, there = floor(importer), floor(imported)
    if here is None or there is None:  # a package's own docstring file
        return there is None
    if there < here:
        return True
    if there > here:
        return False
    if importer in TOP_OF_FLOOR_3:
        return imported.startswith(TOP_OF_FLOOR_3[importer])
    if here == 5:  # one package: the loop's own files and the importers, without cycles (below)
        return True
    own = here in OWN_PACKAGE or package(importer) in FAMILIES
    return own and package(importer) == package(imported)


def modules() -> dict[str, Path]:
    paths = [p for top in FIRST_PARTY for p in [*ROOT.glob(f"{top}.py"), *(ROOT / top).rglob("*.py")]]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_downward(module: str):
    wrong = [name for name in imports(module, modules()[module]) if not allowed(module, name)]
    assert not wrong, f"{module} (floor {floor(module)}) must not import {wrong}"


def test_no_cycles():
    known = modules()
    edges = {m: {n if n in known else n.rpartition(".")[0] for n in imports(m, p)} - {m} for m, p in known.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for name in edges.get(module, ()):
                visit(name, (*trail, module))
            done.add(module)

    for module in known:
        visit(module, ())
    assert done
