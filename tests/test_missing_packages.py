"""A Python that lacks our libraries gets one sentence."""

import pytest

from dnnlib.errors import ConfigError, missing_packages_in_words


def test_a_library_that_is_not_installed_is_named_with_its_cure():
    said = r"^hydra is not installed for .*\.venv/bin/activate.*requirements\.txt"
    with pytest.raises(ConfigError, match=said), missing_packages_in_words():
        raise ModuleNotFoundError("No module named 'hydra.core'", name="hydra.core")


def test_a_module_of_ours_that_is_not_there_is_a_defect():
    with pytest.raises(ModuleNotFoundError), missing_packages_in_words():
        raise ModuleNotFoundError("No module named 'training.nothing'", name="training.nothing")
