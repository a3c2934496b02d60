"""Every recipe builds, and means what its name says."""

import inspect

import pytest

from ctbench import recipe as find
from ctbench.recipes import recipes
from ctbench.training import Recipe

RECIPES = recipes()


def test_the_package_is_walked():
    families = [f"{family}_{method}" for family in ("digits", "mnist_small") for method in ("ibp", "pgd", "standard")]
    assert set(families) <= set(RECIPES)
    assert list(RECIPES) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_as_its_function(name):
    made = RECIPES[name]()
    assert isinstance(made, Recipe)
    assert made.name == name
    assert name.endswith(made.method.name)
    assert made.source
    assert find(name) == made == RECIPES[name]()
    assert not inspect.signature(RECIPES[name]).parameters


@pytest.mark.parametrize("name", RECIPES)
def test_the_radius_is_reached_and_the_last_learning_rate_is_used(name):
    made = RECIPES[name]()
    assert made.ramp.end < made.epochs
    assert all(milestone < made.epochs for milestone in made.optimizer.milestones)
    assert made.ramp.share(made.epochs * 10 - 1, 10) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_the_regulariser_goes_with_methods_that_have_boxes(name):
    made = RECIPES[name]()
    certified = made.method.name not in ("standard", "pgd")
    assert (made.shi > 0, made.initialization) == ((True, "shi") if certified else (False, "kaiming"))


def test_recipes_are_told_apart_by_their_hashes():
    assert len({make().hash for make in RECIPES.values()}) == len(RECIPES)


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match=r"no recipe is called 'mnist'; there are .*digits_ibp, .*mnist_small_ibp"):
        find("mnist")
