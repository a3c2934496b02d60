"""The recipes against the numbers that papers have printed; "/" is printed where a method has no such value.

"?" stands for what the text of the paper leaves out. What recipes have there, and where they differ from a table on
purpose, is listed below it.
"""

from collections.abc import Callable
from itertools import product

import pytest

from ctbench.methods.mtl_ibp import MTLIBP
from ctbench.methods.sabr import SABR
from ctbench.methods.taps import TAPS
from ctbench.recipes import recipes
from ctbench.results import Published
from ctbench.training import Recipe

RECIPES = {name: make() for name, make in recipes().items()}

COLUMNS = ("pgd", "edac", "ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp")

# CTBench, Tables 3 to 7, in the order of COLUMNS
HYPER_PARAMETERS = {
    "mnist_01": """
        l1                 1e-5  1e-5  2e-6  2e-6  1e-6  1e-6  1e-6  ?
        w_rob              1.0   1.0   1.0   1.0   0.7   0.7   0.7   0.7
        train_eps          0.2   0.2   0.2   0.2   0.2   0.2   0.2   0.2
        eps_shrink_ratio   /     /     /     /     0.4   /     0.4   /
        classifier_size    /     /     /     /     /     3     1     /
        gradient_scale     /     /     /     /     /     4     4     /
        relu_shrink_ratio  /     /     /     /     /     /     /     /
        ibp_coefficient    /     /     /     /     /     /     /     0.02
    """,
    "mnist_03": """
        l1                 5e-6  5e-6  1e-6  1e-6  2e-6  2e-6  2e-6  1e-6
        w_rob              1.0   1.0   1.0   1.0   1.0   1.0   1.0   1.0
        train_eps          0.3   0.3   0.3   0.3   0.3   0.3   0.3   0.3
        eps_shrink_ratio   /     /     /     /     0.8   /     0.8   /
        classifier_size    /     /     /     /     /     1     1     /
        gradient_scale     /     /     /     /     /     3     1     /
        relu_shrink_ratio  /     /     /     /     /     /     /     /
        ibp_coefficient    /     /     /     /     /     /     /     0.5
    """,
    "cifar10_2": """
        l1                 2e-5  5e-6  1e-6  1e-6  1e-6  2e-6  5e-6  3e-6
        w_rob              1.0   1.0   1.0   1.0   0.7   1.0   1.0   0.9
        train_eps          2/255 2/255 2/255 2/255 3/255 2/255 3/255 2/255
        eps_shrink_ratio   /     /     /     /     0.1   /     0.1   /
        classifier_size    /     /     /     /     /     5     1     /
        gradient_scale     /     /     /     /     /     5     5     /
        relu_shrink_ratio  /     /     /     /     0.8   /     0.8   /
        ibp_coefficient    /     /     /     /     /     /     /     0.01
    """,
    "cifar10_8": """
        l1                 1e-6  1e-6  0     0     0     0     0     0
        w_rob              1.0   1.0   1.0   1.0   1.0   1.0   1.0   1.0
        train_eps          8/255 8/255 8/255 8/255 8/255 8/255 8/255 8/255
        eps_shrink_ratio   /     /     /     /     0.7   /     0.9   /
        classifier_size    /     /     /     /     /     1     1     /
        gradient_scale     /     /     /     /     /     2     2     /
        relu_shrink_ratio  /     /     /     /     /     /     /     /
        ibp_coefficient    /     /     /     /     /     /     /     0.5
    """,
    "tinyimagenet": """
        l1                 5e-5  1e-5  5e-5  ?     ?     ?     ?     ?
        w_rob              1.0   1.0   1.0   1.0   1.0   1.0   1.0   0.7
        train_eps          1/255 1/255 1/255 1/255 1/255 1/255 1/255 1/255
        eps_shrink_ratio   /     /     /     /     0.4   /     0.6   /
        classifier_size    /     /     /     /     /     1     1     /
        gradient_scale     /     /     /     /     /     8     4     /
        relu_shrink_ratio  /     /     /     /     /     /     /     /
        ibp_coefficient    /     /     /     /     /     /     /     0.05
    """,
}
FROM_THE_SCRIPTS = {  # of the authors, where the text of a table is cut off (Table 3) or empty (Table 7)
    ("mnist_01_mtl_ibp", "l1"): 1e-5,
    ("tinyimagenet_crown_ibp", "l1"): 2e-5,
    ("tinyimagenet_sabr", "l1"): 5e-5,
    ("tinyimagenet_taps", "l1"): 5e-5,
    ("tinyimagenet_staps", "l1"): 5e-5,
    ("tinyimagenet_mtl_ibp", "l1"): 5e-5,
}

# CTBench, App. B.3: epochs, batch size, epochs of standard training, of warm-up, those after which the learning rate is
# multiplied by 0.2, and the weight of Shi et al.'s regulariser. App. B.4: attack steps, and those of MTL-IBP.
SCHEDULES = {
    "mnist_01": (70, 256, 0, 20, (50, 60), 0.5, 10, 1),
    "mnist_03": (70, 256, 0, 20, (50, 60), 0.5, 5, 1),
    "cifar10_2": (160, 128, 1, 80, (120, 140), 0.5, 8, 8),
    "cifar10_8": (240, 128, 1, 120, (200, 220), 0.5, 10, 1),
    "tinyimagenet": (160, 128, 1, 80, (120, 140), 0.2, 1, 1),
}

# CTBench, Table 1: natural, certified and adversarial accuracy; of PGD and EDAC (certified: about 0) the first and last
ACCURACIES = {
    "mnist_01": """
        99.47 /     98.97
        99.58 /     98.95
        98.87 98.26 98.27
        98.94 98.21 98.23
        99.08 98.40 98.47
        99.16 98.52 98.58
        99.11 98.47 98.50
        99.18 98.37 98.44
    """,
    "mnist_03": """
        99.43 /     93.83
        99.51 /     95.02
        98.54 93.80 94.30
        98.48 93.90 94.29
        98.66 93.68 94.46
        98.56 93.95 94.66
        98.74 93.64 94.36
        98.74 93.90 94.55
    """,
    "cifar10_2": """
        88.67 /     72.41
        89.18 /     72.42
        67.49 55.99 56.10
        67.60 57.11 57.28
        77.86 63.61 65.56
        74.44 61.27 62.62
        77.05 64.21 66.09
        78.82 64.41 67.69
    """,
    "cifar10_8": """
        78.71 /     35.93
        78.95 /     42.48
        48.51 35.28 35.48
        48.25 32.59 32.77
        52.71 35.34 36.11
        49.96 35.25 35.69
        51.49 35.11 35.54
        54.28 35.41 36.02
    """,
    "tinyimagenet": """
        46.78 /     33.16
        46.79 /     33.16
        26.77 19.82 19.84
        28.44 22.14 22.31
        30.58 20.96 21.16
        28.64 21.58 21.71
        30.63 22.31 22.57
        35.97 27.73 28.49
    """,
}
STANDARD = {"mnist_01": 99.50, "mnist_03": 99.50, "cifar10_2": 91.27, "cifar10_8": 91.27, "tinyimagenet": 47.96}


def number(text: str) -> float | None:
    if text == "/":
        return None
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def sabr(made: Recipe) -> SABR | None:
    return made.method if isinstance(made.method, SABR) else None


def taps(made: Recipe) -> TAPS | None:
    method = made.method.inner if isinstance(made.method, SABR) else made.method
    return method if isinstance(method, TAPS) else None


VALUES: dict[str, Callable[[Recipe], float | None]] = {
    "l1": lambda made: made.l1,
    "w_rob": lambda made: made.robust_weight,
    "train_eps": lambda made: made.final_eps,
    "eps_shrink_ratio": lambda made: getattr(sabr(made), "ratio", None),
    "classifier_size": lambda made: getattr(taps(made), "classifier_relus", None),
    "gradient_scale": lambda made: getattr(taps(made), "scale", None),
    "relu_shrink_ratio": lambda made: None if getattr(sabr(made), "shrink", 1.0) == 1.0 else made.method.shrink,
    "ibp_coefficient": lambda made: made.method.alpha if isinstance(made.method, MTLIBP) else None,
}


@pytest.mark.parametrize("setting", HYPER_PARAMETERS)
def test_hyper_parameters_of_ctbench(setting):
    table = rows(HYPER_PARAMETERS[setting])
    assert [row for row, *_ in table] == list(VALUES)
    for row, *line in table:
        for column, text in zip(COLUMNS, line, strict=True):
            name = f"{setting}_{column}"
            value = FROM_THE_SCRIPTS[name, row] if text == "?" else number(text)
            assert VALUES[row](RECIPES[name]) == value, (name, row)


@pytest.mark.parametrize(("setting", "column"), list(product(SCHEDULES, ("standard", *COLUMNS))))
def test_schedules_of_ctbench(setting, column):
    recipe = RECIPES[f"{setting}_{column}"]
    epochs, batch_size, start, growth, milestones, shi, steps, steps_of_mtl_ibp = SCHEDULES[setting]
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert (recipe.ramp.name, recipe.ramp.start, recipe.ramp.end) == ("smooth", start, start + growth)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.clip_norm) == ("adam", 5e-4, 10)
    assert (recipe.optimizer.milestones, recipe.optimizer.decay) == (milestones, 0.2)
    certified = column in COLUMNS[2:]
    assert (recipe.initialization, recipe.shi) == (("shi", shi) if certified else ("kaiming", 0))
    attack = getattr(taps(recipe) or recipe.method, "attack", None)
    if attack is None:
        assert column in ("standard", "ibp", "crown_ibp")
    else:
        assert (attack.steps, attack.restarts) == (steps_of_mtl_ibp if column == "mtl_ibp" else steps, 3)
    if column == "mtl_ibp":
        assert recipe.method.attack_scale == (2 if setting == "cifar10_2" else 1)


@pytest.mark.parametrize("setting", ACCURACIES)
def test_accuracies_of_ctbench(setting):
    standard = RECIPES[f"{setting}_standard"].published
    assert standard == Published(natural=STANDARD[setting], source="CTBench, Table 1")
    for column, line in zip(COLUMNS, rows(ACCURACIES[setting]), strict=True):
        natural, certified, adversarial = map(number, line)
        assert natural is not None
        published = Published(natural=natural, certified=certified, adversarial=adversarial, source="CTBench, Table 1")
        assert RECIPES[f"{setting}_{column}"].published == published, column


# Müller et al. 2023 (SABR): L1 coefficient and subselection ratio (Table 3), accuracies (Table 2, on CIFAR-10 at 2/255
# those with shrinking), and shrinking coefficient, epochs, batch size, epochs of annealing, learning rate milestones
# (App. B)
SABR_ORIGINAL = {
    "mnist_01": (0.1, 1e-5, 0.4, 99.25, 98.06, 1.0, 70, 256, 20, (50, 60)),
    "mnist_03": (0.3, 1e-6, 0.6, 98.82, 93.38, 1.0, 70, 256, 20, (50, 60)),
    "cifar10_2": (2 / 255, 1e-6, 0.1, 79.52, 62.57, 0.8, 160, 128, 80, (120, 140)),
    "cifar10_8": (8 / 255, 0.0, 0.7, 52.00, 35.25, 1.0, 180, 128, 80, (140, 160)),
    "tinyimagenet": (1 / 255, 1e-6, 0.4, 28.64, 20.34, 1.0, 180, 128, 80, (140, 160)),
}


@pytest.mark.parametrize("setting", SABR_ORIGINAL)
def test_sabr_original(setting):
    recipe = RECIPES[f"{setting}_sabr_original"]
    eps, l1, ratio, natural, certified, shrink, epochs, batch_size, annealing, milestones = SABR_ORIGINAL[setting]
    assert recipe.threat.eps == recipe.final_eps == eps
    assert (recipe.l1, recipe.method.ratio, recipe.method.shrink) == (l1, ratio, shrink)
    assert recipe.published == Published(natural=natural, certified=certified, source="Müller et al. 2023, Table 2")
    assert (recipe.epochs, recipe.batch_size, recipe.robust_weight) == (epochs, batch_size, 1)
    assert (recipe.ramp.start, recipe.ramp.end) == (1, 1 + annealing)  # one epoch at 0 comes first
    assert (recipe.optimizer.lr, recipe.optimizer.milestones, recipe.optimizer.decay) == (5e-4, milestones, 0.2)
    assert recipe.method.attack.step_sizes() == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005])
    assert recipe.dataset.augmentation.crop == (56 if setting == "tinyimagenet" else None)


# Mao et al. 2023: ReLUs in the classifier, L1 coefficient and w of TAPS (Table 3) and of STAPS (Table 5), each with the
# accuracies (Table 1)
TAPS_ORIGINAL = {
    "mnist_01": ((3, 1e-6, 5), (99.19, 98.39), (1, 2e-5, 5), (99.15, 98.37)),
    "mnist_03": ((1, 0.0, 5), (97.94, 93.62), (1, 2e-6, 5), (98.53, 93.51)),
    "cifar10_2": ((5, 2e-6, 5), (75.09, 61.56), (1, 2e-6, 2), (79.76, 62.98)),
    "cifar10_8": ((1, 2e-6, 5), (49.76, 35.10), (1, 2e-6, 5), (52.82, 34.65)),
    "tinyimagenet": ((1, 0.0, 5), (28.34, 20.82), (2, 1e-6, 5), (28.98, 22.16)),
}
# Mao et al. 2023, Table 2: batch size, epochs, epochs of annealing, learning rate milestones
TAPS_SCHEDULES = {
    "mnist": (256, 70, 20, (50, 60)),
    "cifar10": (128, 160, 80, (120, 140)),
    "tinyimagenet": (128, 80, 20, (60, 70)),
}


@pytest.mark.parametrize(("setting", "column"), list(product(TAPS_ORIGINAL, ("taps", "staps"))))
def test_taps_and_staps_original(setting, column):
    recipe = RECIPES[f"{setting}_{column}_original"]
    relus_l1_w, accuracies = TAPS_ORIGINAL[setting][:2] if column == "taps" else TAPS_ORIGINAL[setting][2:]
    method = taps(recipe)
    assert method is not None
    assert (method.classifier_relus, recipe.l1, method.scale) == relus_l1_w
    natural, certified = accuracies
    assert recipe.published == Published(natural=natural, certified=certified, source="Mao et al. 2023, Table 1")
    batch_size, epochs, annealing, milestones = TAPS_SCHEDULES[setting.partition("_")[0]]
    assert (recipe.batch_size, recipe.epochs, recipe.robust_weight) == (batch_size, epochs, 1)
    assert (recipe.ramp.start, recipe.ramp.end) == (0, annealing)
    assert (recipe.optimizer.lr, recipe.optimizer.milestones, recipe.optimizer.decay) == (5e-4, milestones, 0.2)
    assert recipe.optimizer.clip_norm == 10
    assert recipe.final_eps == recipe.threat.eps
    assert recipe.dataset.augmentation.crop == (56 if setting == "tinyimagenet" else None)
    if column == "staps":  # the paper names neither ratio nor shrinking: they are SABR's
        original = RECIPES[f"{setting}_sabr_original"].method
        assert (recipe.method.ratio, recipe.method.shrink) == (original.ratio, original.shrink)
