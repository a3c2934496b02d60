"""Every recipe can be built, and matches its name."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kinds import ours

from ctbench import recipe as find
from ctbench.methods import Method, methods
from ctbench.methods.ibp import IBP
from ctbench.methods.sabr import SABR
from ctbench.methods.taps import TAPS
from ctbench.recipes import originals, recipes, robust_accuracy
from ctbench.recipes.digits import digits_ibp
from ctbench.training import Recipe

RECIPES = recipes()
METHODS = set(ours(methods()))
ADVERSARIAL = ("standard", "pgd", "edac", "mart", "arow", "sam", "line_search", "colt")
EIGHT = ("pgd", "edac", "ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp")
TABLES = ("mnist_01", "mnist_03", "cifar10_2", "cifar10_8", "tinyimagenet")


def kind(method: Method) -> str:
    """The name of a method in the names of recipes."""
    if isinstance(method, SABR) and isinstance(method.inner, TAPS):
        return "staps"
    return method.name.replace("-", "_")


def test_the_package_is_walked():
    small = {f"{family}_{method}" for family in ("digits", "mnist_small", "mnist_small_03") for method in EIGHT}
    assert small <= set(RECIPES)
    assert {f"digits_{name.replace('-', '_')}" for name in METHODS} <= set(RECIPES)
    assert list(RECIPES) == sorted(RECIPES)


def test_what_a_caller_does_with_the_recipes_changes_none_of_them():
    recipes().clear()
    assert recipes().keys() == RECIPES.keys()
    assert find("digits_ibp") == RECIPES["digits_ibp"]()


@pytest.mark.parametrize("setting", TABLES)
def test_every_column_of_the_tables_has_a_recipe_with_published_accuracies(setting):
    published = [RECIPES[f"{setting}_{method}"]().published for method in EIGHT]
    assert all(accuracies.source == "CTBench, Table 1" for accuracies in published)
    assert all(accuracies.adversarial is not None for accuracies in published)
    assert [accuracies.certified is None for accuracies in published] == [True] * 2 + [False] * 6
    assert all(
        accuracies.certified <= accuracies.adversarial < accuracies.natural
        for accuracies in published[2:]
        if accuracies.certified
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_by_its_function_or_its_entry_in_a_table(name):
    recipe = RECIPES[name]()
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert name.removesuffix("_original").endswith(kind(recipe.method))
    assert recipe.source
    assert find(name) == recipe == RECIPES[name]()
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_names_are_written_once():
    assert digits_ibp().name == "unnamed"
    assert robust_accuracy.RECIPES["robustacc_mnist_linf_01_ibp"]().name == "unnamed"
    files = Path(robust_accuracy.__file__).parent.glob("*.py")
    assert not [file.name for file in files if re.search(r"\bname=", file.read_text().replace("name=name", ""))]


def test_private_functions_and_functions_with_parameters_are_not_recipes():
    assert hasattr(robust_accuracy, "_mnist")
    assert not {"_mnist", "recipes", "recipe", "table_1", "certified"} & set(RECIPES)


@pytest.mark.parametrize("name", [name for name in RECIPES if "taps" in name])
def test_taps_is_trained_without_its_attack_in_the_classifier_while_the_radius_grows(name):
    recipe = RECIPES[name]()
    assert recipe.warmup == (IBP() if "_taps" in name else replace(recipe.method, inner=IBP()))


@pytest.mark.parametrize("name", RECIPES)
def test_the_radius_is_reached_and_the_last_learning_rate_is_used(name):
    recipe = RECIPES[name]()
    assert recipe.ramp.end < recipe.epochs
    assert all(milestone < recipe.epochs for milestone in recipe.optimizer.milestones)
    assert recipe.ramp.share(recipe.epochs * 10 - 1, 10) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_the_regulariser_goes_with_methods_that_have_boxes(name):
    recipe = RECIPES[name]()
    compared = {"linf", "l2"} & set(name.split("_")) and not name.endswith("fast_ibp")  # relaxations as they are
    original = name in ("mnist_03_ibp_original", "mnist_03_crown_ibp_original")
    normalised = recipe.network.name in ("vit", "layernorm-mlp")  # their layers rescale what any initialisation does
    plain = kind(recipe.method) in (*ADVERSARIAL, "coap") or compared or original or normalised
    assert (recipe.shi > 0, recipe.initialization) == ((False, "kaiming") if plain else (True, "shi"))


def test_recipes_are_told_apart_by_their_hashes():
    assert len({make().hash for make in RECIPES.values()}) == len(RECIPES)


def test_an_unknown_recipe_is_told_with_those_of_similar_names():
    with pytest.raises(ValueError, match=r"no recipe is called 'mnist_ibp'; there are .*mnist_01_ibp.*: ctbench list"):
        find("mnist_ibp")
    with pytest.raises(ValueError, match=r"no recipe is called 'xyz'; see the list: ctbench list recipes"):
        find("xyz")


def test_networks_begin_with_a_normalisation_except_where_the_text_of_a_paper_is_followed_on_mnist():
    without = {name for name, make in RECIPES.items() if not make().normalize}
    of_papers = [f"mnist_{eps}_{method}_original" for eps in ("01", "03") for method in ("sabr", "taps", "staps")]
    assert without == {*of_papers, *(name for name in RECIPES if name.startswith("robustacc_mnist"))}


def test_crops_of_recipes_repeat_the_edge_and_zero_padding_is_one_change_away():
    cropped = {name: make() for name, make in RECIPES.items() if make().dataset.augmentation.crop_padding}
    assert {recipe.dataset.augmentation.padding for recipe in cropped.values()} == {"edge"}
    black = cropped["cifar10_2_ibp"].with_changes(["dataset.augmentation.padding=zero"])
    assert black.dataset.augmentation.padding == "zero"
    assert black.hash != cropped["cifar10_2_ibp"].hash


def test_the_small_recipes_differ_from_the_tables_as_their_page_says():
    kinds = ("pgd", "edac", "ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp")
    for eps, small in (("01", "mnist_small"), ("03", "mnist_small_03")):
        for method in kinds:
            here, table = RECIPES[f"{small}_{method}"](), RECIPES[f"mnist_{eps}_{method}"]()
            assert (here.robust_weight, here.l1, here.swa, here.final_eps) == (1, 0, None, here.threat.eps)
            assert table.l1 > 0
            assert (table.swa is not None) == (method == "mtl_ibp")
            assert table.final_eps == (0.2 if eps == "01" else 0.3)
            assert table.robust_weight == (0.7 if eps == "01" and method in kinds[4:] else 1)
            assert (here.shi, here.batch_size, here.optimizer.clip_norm) == (
                table.shi,
                table.batch_size,
                table.optimizer.clip_norm,
            )
    assert RECIPES["mnist_01_taps"]().method.classifier_relus == 3
    assert RECIPES["mnist_small_taps"]().method.classifier_relus == 1
    assert RECIPES["mnist_small_mtl_ibp"]().method.alpha == RECIPES["mnist_01_mtl_ibp"]().method.alpha
    for method, field in (("sabr", "ratio"), ("taps", "scale")):
        for eps, small in (("01", "mnist_small"), ("03", "mnist_small_03")):
            values = [getattr(RECIPES[f"{name}_{method}"]().method, field) for name in (small, f"mnist_{eps}")]
            assert values[0] == values[1]


def test_the_originals_without_a_regulariser_have_the_initialisation_that_their_text_names():
    assert {RECIPES[f"mnist_03_{method}_original"]().initialization for method in ("ibp", "crown_ibp")} == {"kaiming"}
    assert "Kaiming" in (originals.mnist_03_ibp_original.__doc__ or "")
