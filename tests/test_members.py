"""Members of a kind are found by name, wherever they are defined."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from tests.kinds import ours
from tests.own_members import (
    AnalysisOfTheTest,
    AttackOfTheTest,
    DatasetOfTheTest,
    DomainOfTheTest,
    MethodOfTheTest,
    NetworkOfTheTest,
    StageOfTheTest,
    ThreatOfTheTest,
)

import ctbench
from ctbench.analyses import Analysis, analyses
from ctbench.attacks import PGD, Attack, attacks
from ctbench.datasets import Dataset, datasets
from ctbench.domains import Domain, Interval, domain, domains
from ctbench.members import members, modules, own_name, required_fields
from ctbench.methods import Method, methods
from ctbench.networks import Architecture, architectures
from ctbench.regions import Linf, Threat, threats
from ctbench.training import codec
from ctbench.verify import Bound, Stage, stage_types, stages_by_name

KINDS = {
    MethodOfTheTest: (Method, methods),
    DatasetOfTheTest: (Dataset, datasets),
    NetworkOfTheTest: (Architecture, architectures),
    ThreatOfTheTest: (Threat, threats),
    AttackOfTheTest: (Attack, attacks),
    StageOfTheTest: (Stage, stage_types),
    DomainOfTheTest: (Domain, domains),
    AnalysisOfTheTest: (Analysis, analyses),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_of_your_own_is_found(kind):
    base, finder = KINDS[kind]
    assert finder()[kind.name] is kind
    assert finder() == members(base)
    assert list(finder()) == sorted(finder())
    assert all(found.name == name for name, found in finder().items())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (StageOfTheTest, DomainOfTheTest)])
def test_a_class_of_your_own_can_stand_in_a_recipe(kind):
    base, _ = KINDS[kind]
    value = kind(eps=0.5) if base is Threat else kind()
    assert codec.encode(value)["name"] == kind.name
    assert codec.decode(base, codec.encode(value)) == value


def test_all_of_ours_are_found():
    assert list(ours(domains())) == ["alpha-crown", "coap", "crown", "crown-ibp", "interval", "zonotope"]
    assert list(ours(attacks())) == ["apgd", "line-search", "pgd"]
    assert list(ours(stage_types())) == ["bound", "branch-and-bound", "falsify", "input-split", "milp"]


class Kind(ABC):
    name: ClassVar[str]

    @abstractmethod
    def value(self): ...


def make(base: type, name: str, *, qualname: str | None = None) -> type:
    content = {"name": name, "value": lambda self: 0, "__module__": __name__, "__qualname__": qualname or name}
    return type(name, (base,), content)


@pytest.fixture
def kind():
    """An abstract class of the test's own, without members."""

    class Own(Kind):
        pass

    return Own


def test_members_are_concrete_and_have_a_name_of_their_own(kind):
    first = make(kind, "first")
    abstract = type("Abstract", (kind,), {"name": "abstract"})
    below = make(abstract, "below")
    nameless = type("Nameless", (first,), {})
    assert members(kind) == {"below": below, "first": first}
    assert (own_name(nameless), own_name(first)) == (None, "first")


def test_a_field_is_not_the_name_of_a_class():
    @dataclass
    class Named:
        name: str = "a field"

    assert own_name(Named) is None


def test_two_classes_of_one_name_are_an_error_that_names_both(kind):
    classes = [make(kind, "twin", qualname=where) for where in ("One.twin", "Other.twin")]
    with pytest.raises(ValueError, match=r"\.One\.twin and .*\.Other\.twin are both named 'twin': rename one of them"):
        members(kind)
    assert len(classes) == 2


def test_a_class_that_is_defined_again_replaces_the_former(kind):
    classes = [make(kind, "again") for _ in range(2)]
    assert members(kind)["again"] is classes[1]


def write_package(folder: Path, module: str) -> None:
    """Write a package with an abstract class in one module, and a member in another one."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    text = "from abc import ABC, abstractmethod\nclass Base(ABC):\n    @abstractmethod\n    def call(self): ...\n"
    (folder / f"{module}.py").write_text(text)
    text = f"from {folder.name}.{module} import Base\nclass A(Base):\n    name = 'a'\n    def call(self): ...\n"
    (folder / "first.py").write_text(text)


@pytest.mark.parametrize(("module", "names"), [("base", ["a"]), ("other", [])])
def test_only_the_package_of_a_module_called_base_is_imported(tmp_path, monkeypatch, module, names):
    package = f"kinds_of_the_test_in_{module}"
    write_package(tmp_path / package, module)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(members(import_module(f"{package}.{module}").Base)) == names


def test_modules_of_a_package_are_sorted():
    names = [module.__name__ for module in modules("ctbench.attacks")]
    assert names == sorted(names)
    assert "ctbench.attacks.pgd" in names
    assert all(isinstance(module, ModuleType) for module in modules("ctbench.attacks"))


def test_required_fields():
    assert required_fields(Linf) == ["eps"]
    assert required_fields(Bound) == ["domain"]
    assert required_fields(PGD) == []


def test_a_domain_of_your_own_bounds_by_its_name_and_options():
    assert domain("your-domain", scale=2.0) == DomainOfTheTest(scale=2.0)
    x = torch.rand(3, 4)
    bounds = ctbench.bounds(torch.nn.Linear(4, 2), x, eps=0.1, domain="your-domain", scale=2.0)
    assert (bounds.lower < bounds.upper).all()

    @dataclass(frozen=True, kw_only=True)
    class Demanding(Interval):
        name: ClassVar[str] = "demanding"
        size: int

    with pytest.raises(ValueError, match="the domain 'demanding' has no default for size: give a value"):
        domain(Demanding.name)


def test_stages_by_name():
    assert stages_by_name("your-stage,crown") == (StageOfTheTest(), Bound(domain="crown"))
    assert stages_by_name("your-domain") == (Bound(domain=DomainOfTheTest()),)
    assert stages_by_name("alpha-crown")[0] is stages_by_name("fast")[-1]
    assert [stage.title for stage in stages_by_name("fast")] == ["interval", "crown-ibp", "pgd", "crown", "alpha-crown"]
    with pytest.raises(
        ValueError, match=r"no stage is called 'crwn'; there are alpha-crown, bound, .*, complete, crown,"
    ):
        stages_by_name("interval,crwn")
    with pytest.raises(ValueError, match="the stage 'bound' has no default for domain"):
        stages_by_name("bound")
