"""What `import ctbench` gives, and what it leaves until it is used."""

import subprocess
import sys
from importlib import import_module

import pytest
from tests.kinds import ours

import ctbench
from ctbench import public
from ctbench.analyses import analyses
from ctbench.attacks import attacks
from ctbench.datasets import datasets
from ctbench.domains import domains
from ctbench.methods import methods
from ctbench.networks import architectures
from ctbench.regions import threats
from ctbench.verify import stage_types


def test_import_alone_does_not_import_torch_and_gives_names_and_subpackages():
    code = """
import sys
import ctbench
assert "torch" not in sys.modules
assert ctbench.analyses.fragmentation.__module__ == "ctbench.analyses.fragmentation"
assert ctbench.attacks.PGD and ctbench.Linf(0.1).eps == 0.1
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_public_name_is_there():
    for name in public.__all__:
        assert getattr(ctbench, name) is getattr(public, name)
        assert name in dir(ctbench)
    assert ctbench.__all__ == public.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ctbench.nothing  # noqa: B018


@pytest.mark.parametrize("finder", [analyses, attacks, datasets, domains, methods, architectures, threats, stage_types])
def test_each_member_of_a_kind_is_imported_from_its_package(finder):
    for member in ours(finder()).values():
        package = import_module(".".join(member.__module__.split(".")[:2]))
        assert getattr(package, member.__name__) is member
        assert member.__name__ in package.__all__
