"""Every test runs on one thread of one CPU, with shapes checked at every call of ours."""

import os

from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401  (the hook looks the checker up by name)

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
install_import_hook(["torch_utils", "training", "metrics"], "tests.shapes.checked")
