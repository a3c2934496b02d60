"""The names of ctbench on the page for users of other tools exist: methods, recipe fields, and the fields of stages."""

import dataclasses
import re
from pathlib import Path

import pytest

import ctbench
from ctbench import attacks, domains, methods, regions, verify
from ctbench.networks import CNN7
from ctbench.training import SWA, Adam

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
OURS = "\n".join(ours for _, ours in ROWS)
KINDS = {kind.__name__: kind for kind in methods.methods().values()}
for package in (regions, verify, attacks, domains):
    KINDS |= {name: getattr(package, name) for name in package.__all__}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`method=([a-z-]+)`", OURS))))
def test_a_method_has_this_name(name):
    assert name in methods.methods()


@pytest.mark.parametrize(("kind", "field"), sorted(set(re.findall(r"\b([A-Z]\w+)\((\w+)=", OURS))))
def test_a_class_has_this_field(kind, field):
    assert field in {declared.name for declared in dataclasses.fields(KINDS[kind])}


@pytest.mark.parametrize(
    "field", ["train_eps", "ramp", "shi", "l1", "accumulate", "validation", "select", "precise_bn"]
)
def test_a_recipe_has_this_field(field):
    assert f"`{field}" in OURS
    assert field in {declared.name for declared in dataclasses.fields(ctbench.Recipe)}


def test_settings_of_the_optimiser_and_of_averages_have_these_names():
    for kind, names in ((Adam, ("lr", "milestones", "decay", "clip_norm")), (SWA, ("start", "every"))):
        assert set(names) <= {declared.name for declared in dataclasses.fields(kind)}
        assert all(re.search(rf"`(optimizer|swa)?\.{name}`", OURS) for name in names)


def test_domains_and_networks_have_these_names():
    assert set(re.findall(r'domain="([a-z-]+)"', OURS)) <= set(domains.domains())
    assert f"`{CNN7.name}`" in OURS
