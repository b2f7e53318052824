"""What was public in version 0.1 still works; what has moved says where to."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from bncourse.moved import MODULES, NAMES

OLD = (Path(__file__).parents[1] / "helpers" / "names_of_0_1.txt").read_text().split()


def find(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("name", OLD)
def test_a_public_name_of_0_1_still_works(name):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        thing = find(name)
    if said := [str(warning.message) for warning in said if "the old name goes" in str(warning.message)]:
        new = said[0].split()[3].rstrip(";")
        assert said[0].startswith(f"{name} is now ") and find(new) is thing


def test_what_has_moved_is_there():
    for new in [*MODULES.values(), *(name.rpartition(".")[0] for name in NAMES.values())]:
        import_module(new)


def test_an_old_import_warns_at_its_own_line():
    script = "import bncourse\nfrom bncourse.experiments import claim\n"
    run = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True)
    assert "<string>:2: DeprecationWarning: bncourse.experiments.claim is now bncourse.claims.claim" in run.stderr


def test_a_name_that_never_was_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        find("bncourse.experiments.nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        find("bncourse.lean.nothing")
