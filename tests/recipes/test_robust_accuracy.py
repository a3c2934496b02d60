"""The recipes for images of "How robust accuracy suffers from certified training", against its tables and appendix."""

from dataclasses import replace

import pytest

from ctbench.datasets import Digits
from ctbench.networks import MLP, ConvLarge, ResNet, WideResNet
from ctbench.recipes import recipe as find
from ctbench.recipes import recipes
from ctbench.regions import L2, Linf
from ctbench.results import jsonl
from ctbench.training import Adam, Recipe, train

# robust and standard error of AT, COAP, CROWN-IBP, IBP and FAST-IBP: Tables 4 and 5
ERRORS = {
    "mnist_linf_01": (0.1, "0.021 0.008  0.026 0.010  0.024 0.010  0.026 0.010  0.017 0.009"),
    "mnist_linf_02": (0.2, "0.045 0.008  0.066 0.026  0.050 0.014  0.060 0.014  0.032 0.010"),
    "mnist_linf_03": (0.3, "0.095 0.008  0.224 0.110  0.075 0.017  0.091 0.021  0.058 0.015"),
    "mnist_linf_04": (0.4, "0.321 0.008  0.806 0.737  0.120 0.025  0.147 0.033  0.104 0.024"),
    "mnist_l2_05": (0.5, "0.020 0.006  0.040 0.014  0.059 0.027  0.068 0.032  0.044 0.022"),
    "mnist_l2_075": (0.75, "0.035 0.006  0.100 0.030  0.125 0.060  0.145 0.070  0.124 0.053"),
    "mnist_l2_1": (1.0, "0.048 0.006  0.193 0.049  0.355 0.192  0.539 0.432  0.361 0.175"),
    "mnist_l2_125": (1.25, "0.092 0.005  0.302 0.074  0.760 0.696  0.806 0.794  0.724 0.652"),
    "cifar10_linf_1": (1 / 255, "0.296 0.150  0.372 0.309  0.425 0.331  0.459 0.356  0.384 0.290"),
    "cifar10_linf_2": (2 / 255, "0.378 0.166  0.427 0.336  0.498 0.363  0.526 0.415  0.476 0.357"),
    "cifar10_linf_4": (4 / 255, "0.506 0.193  0.609 0.502  0.640 0.548  0.614 0.487  0.585 0.449"),
    "cifar10_linf_8": (8 / 255, "0.698 0.239  0.775 0.729  0.673 0.539  0.708 0.606  0.675 0.546"),
    "cifar10_l2_9": (9 / 255, "0.217 0.151  0.233 0.219  0.521 0.491  0.457 0.424  0.661 0.647"),
    "cifar10_l2_18": (18 / 255, "0.246 0.151  0.316 0.287  0.721 0.690  0.566 0.515  0.763 0.753"),
    "cifar10_l2_36": (36 / 255, "0.298 0.152  0.447 0.399  0.780 0.740  0.680 0.622  0.849 0.844"),
    "cifar10_l2_72": (72 / 255, "0.386 0.172  0.630 0.574  0.900 0.900  0.772 0.740  0.900 0.900"),
}
METHODS = ("pgd", "coap", "crown_ibp", "ibp", "fast_ibp")
TINYIMAGENET = {f"tinyimagenet_{budget}_{method}" for budget in ("linf_1", "l2_5") for method in METHODS} - {
    "tinyimagenet_linf_1_coap",
    "tinyimagenet_l2_5_coap",
}
SEGMENTS = {f"{dataset}_segments_{method}" for dataset in ("mnist", "cifar10") for method in ("line_search", "coap")}
TABLES = {f"{setting}_{method}" for setting in ERRORS for method in METHODS}
PREFIX = "robustacc_"
RECIPES = {name.removeprefix(PREFIX): make() for name, make in recipes().items() if name.startswith(PREFIX)}

# epochs, batch size, the epochs from the first with a larger radius to the first with the full one, and learning rates
# by the epochs from which on they are in force: App. A.1, A.2 and Table 3. On purpose, COAP's radius grows from 0 here,
# where the appendix has 0.01 or 0.001.
SCHEDULES = {
    "mnist_pgd": (100, 128, None, {0: 1e-3, 40: 1e-4, 80: 1e-5}),
    "mnist_coap": (60, 50, (0, 20), {0: 1e-3, 30: 5e-4, 40: 2.5e-4, 50: 1.25e-4}),
    "mnist_crown_ibp": (200, 256, (10, 60), {0: 5e-4, 130: 5e-5, 190: 5e-6}),
    "mnist_ibp": (200, 256, (10, 60), {0: 5e-4, 130: 5e-5, 190: 5e-6}),
    "mnist_fast_ibp": (70, 256, (0, 20), {0: 5e-4, 50: 1e-4, 60: 2e-5}),
    "cifar10_pgd": (150, 128, None, {0: 0.05, 80: 0.005, 120: 0.0005}),
    "cifar10_coap": (60, 50, (0, 20), {0: 0.05, 30: 0.025, 40: 0.0125, 50: 0.00625}),
    "cifar10_crown_ibp": (2000, 256, (100, 900), {0: 5e-4, 1400: 5e-5, 1700: 5e-6}),
    "cifar10_ibp": (2000, 256, (100, 900), {0: 5e-4, 1400: 5e-5, 1700: 5e-6}),
    "cifar10_fast_ibp": (160, 128, (1, 81), {0: 5e-4, 120: 1e-4, 140: 2e-5}),
    "tinyimagenet_pgd": (200, 512, None, {0: 0.1, 100: 0.01, 150: 0.001}),
    "tinyimagenet_crown_ibp": (600, 128, (100, 500), {0: 5e-4}),
    "tinyimagenet_ibp": (600, 128, (100, 500), {0: 5e-4}),
    "tinyimagenet_fast_ibp": (80, 128, (1, 21), {0: 5e-4, 60: 1e-4, 70: 2e-5}),
    "segments_line_search": (20, 64, None, {0: 1e-3, 10: 1e-4}),
    "segments_coap": (20, 64, (0, 3), {0: 1e-3, 13: 5e-4}),
}


def parts(name: str) -> tuple[str, str, str]:
    """The data set, "linf", "l2" or "segments", and the method, of a name."""
    (norm,) = {"linf", "l2", "segments"} & set(name.split("_"))
    dataset, rest = name.split(f"_{norm}_")
    return dataset, norm, rest if norm == "segments" else rest.split("_", 1)[1]


def test_a_name_without_the_prefix_of_the_paper_is_answered_with_the_whole_one():
    for name in RECIPES:
        with pytest.raises(ValueError, match=rf"no recipe is called '{name}'; there are {PREFIX}{name}, "):
            find(name)


def test_every_entry_of_the_tables_has_a_recipe_and_no_other_has():
    assert set(RECIPES) == TABLES | TINYIMAGENET | SEGMENTS
    assert {name for name, made in RECIPES.items() if made.published} == TABLES


@pytest.mark.parametrize("setting", ERRORS)
def test_what_is_published_is_in_the_tables(setting):
    eps, errors = ERRORS[setting]
    table = "Table 4" if setting.startswith("mnist") else "Table 5"
    robust, standard = ([100 * (1 - float(error)) for error in errors.split()[first::2]] for first in (0, 1))
    for method, adversarial, natural in zip(METHODS, robust, standard, strict=True):
        recipe = RECIPES[f"{setting}_{method}"]
        assert recipe.published.adversarial == pytest.approx(adversarial, abs=1e-9)
        assert recipe.published.natural == pytest.approx(natural, abs=1e-9)
        assert recipe.published.certified is None
        assert recipe.published.source == f"De Bartolomeis et al. 2023, {table}"
        assert recipe.threat.eps == eps


@pytest.mark.parametrize("name", RECIPES)
def test_the_schedules_are_those_of_the_appendix(name):
    dataset, norm, method = parts(name)
    recipe = RECIPES[name]
    epochs, batch_size, growth, rates = SCHEDULES[f"{'segments' if norm == 'segments' else dataset}_{method}"]
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert recipe.train_eps is None
    assert recipe.robust_weight == 1
    by_epoch = [recipe.optimizer.lr_at(epoch) for epoch in range(epochs)]
    assert {epoch: by_epoch[epoch] for epoch in rates} == pytest.approx(rates)
    assert {epoch for epoch in range(1, epochs) if by_epoch[epoch] != by_epoch[epoch - 1]} == set(rates) - {0}
    if growth is None:
        assert recipe.at(0, 0, 10).eps == recipe.threat.eps
    else:
        start, end = growth
        assert recipe.at(start, 0, 10).eps == 0 < recipe.at(start, 1, 10).eps
        assert recipe.at(end - 1, 9, 10).eps < recipe.at(end, 0, 10).eps == recipe.threat.eps


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("crown_ibp")])
def test_crown_ibp_turns_to_intervals_as_the_radius_grows(name):
    recipe = RECIPES[name]
    for epoch in range(0, recipe.epochs, 7):
        now = recipe.at(epoch, 3, 10)
        assert now.method.beta == pytest.approx(1 - now.eps / recipe.threat.eps)


@pytest.mark.parametrize("name", RECIPES)
def test_networks_and_what_is_added_for_fast_ibp(name):
    dataset, norm, method = parts(name)
    fast, made = method == "fast_ibp", RECIPES[name]
    resnet, wide = ResNet(batch_norm=fast), WideResNet()
    network = {"mnist": ConvLarge(batch_norm=fast), "cifar10": resnet, "tinyimagenet": wide}[dataset]
    assert made.network == (ConvLarge() if norm == "segments" else network)
    assert (made.initialization, made.shi > 0) == (("shi", True) if fast else ("kaiming", False))
    assert made.optimizer.clip_norm == 10 or not fast


@pytest.mark.parametrize("name", RECIPES)
def test_threat_models_and_the_size_of_searches(name):
    dataset, norm, method = parts(name)
    recipe = RECIPES[name]
    if norm == "segments":
        assert (recipe.threat.name, recipe.threat.eps) == ("random-segments", {"mnist": 20, "cifar10": 2.5}[dataset])
    elif norm == "linf":
        assert recipe.threat == Linf(eps=recipe.threat.eps)
    else:
        assert recipe.threat == L2(eps=recipe.threat.eps, clip=(0, 1) if method == "pgd" else None)
    if method == "pgd":
        assert (recipe.method.attack.name, recipe.method.attack.steps) == ("apgd", 10)
    if method == "coap":
        assert recipe.method.projections == (None if norm == "segments" else 50)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_after_json(name):
    assert Recipe.from_json(RECIPES[name].to_json()).hash == RECIPES[name].hash


SMALL = [f"mnist_small_l2_{method}" for method in METHODS]
LARGE = [f"{PREFIX}{name}" for name in (*(f"mnist_linf_02_{method}" for method in METHODS), "mnist_segments_coap")]


def on_digits(made: Recipe) -> Recipe:
    """One epoch on small images with a small network and a small radius, by the recipe's method and schedules."""
    ramp = replace(made.ramp, start=0, end=min(made.ramp.end, 0.5))
    return replace(
        made,
        dataset=Digits(),
        network=MLP(hidden=(20,), batch_norm=made.network.batch_norm),
        threat=replace(made.threat, eps=made.threat.eps / 20),
        ramp=ramp,
        schedules=tuple(replace(schedule, ramp=ramp) for schedule in made.schedules),
        optimizer=Adam(lr=0.01),
        epochs=1,
        batch_size=64,
        accumulate=1,
    )


@pytest.mark.parametrize("name", LARGE + SMALL)
def test_the_methods_train_in_these_threat_models(name, tmp_path):
    run = train(on_digits(recipes()[name]()), out=tmp_path / "run", quiet=True)
    (metrics,) = jsonl.read(run.folder.metrics)
    assert metrics["natural_accuracy"] > 0.3  # 0.1 by chance
    assert metrics["robust_loss"] > metrics["natural_loss"]


def test_the_small_recipes_are_the_column_of_one_budget():
    assert set(SMALL) == {name for name in recipes() if name.startswith("mnist_small_l2")}
    for recipe in (recipes()[name]() for name in SMALL):
        assert recipe.threat == L2(eps=0.75, clip=(0, 1) if recipe.method.name == "pgd" else None)
        assert recipe.network.batch_norm == recipe.name.endswith("fast_ibp")
