"""The grids of CTBench's Appendix B.4, for each of its settings.

The grid of a setting has parameters that all methods share, and those of single methods; a recipe gets those of its
method. What B.4 does not tune stays as it is in the recipe: the size of TAPS's classifier, the factor of SABR's boxes
after ReLUs, the attacks. For the ratio of SABR and STAPS, B.4 has no grid: it begins at the value of the literature
(Mueller et al. 2023), and adds 0.1 as long as that helps. Here these are four choices.

Some of the paper's best values are not in its grids: the gradient scale 5 of Table 5, and the L1 weight 0 of Table 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctbench.methods import MTLIBP, SABR, TAPS
from ctbench.training import Recipe
from ctbench.tuning.space import Choices, Space, is_file

L1 = ("1e-6", "2e-6", "5e-6", "1e-5", "2e-5", "5e-5")
ROBUST_WEIGHT = ("0.7", "0.8", "0.9", "1.0")
SCALE = ("1", "2", "3", "4", "6", "8")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What B.4 says of a setting.

    Args:
        about: the setting.
        ratios: of SABR and STAPS.
        alphas: the coefficients of MTL-IBP.
        l1: the weights of the L1 regulariser.
        train_eps: the radii of training; none: that of the recipe.
    """

    about: str
    ratios: tuple[str, ...]
    alphas: tuple[str, ...]
    l1: tuple[str, ...] = L1
    train_eps: tuple[str, ...] = ()


SMALL, LARGE = ("0.01", "0.02", "0.05"), ("0.4", "0.5", "0.6")
SETTINGS = {
    "ctbench-mnist-0.1": Setting(about="MNIST, eps 0.1", ratios=("0.4", "0.5", "0.6", "0.7"), alphas=SMALL),
    "ctbench-mnist-0.3": Setting(about="MNIST, eps 0.3", ratios=("0.6", "0.7", "0.8", "0.9"), alphas=LARGE),
    "ctbench-cifar10-2": Setting(
        about="CIFAR-10, eps 2/255",
        ratios=("0.1", "0.2", "0.3", "0.4"),
        alphas=SMALL,
        l1=(*L1[:2], "3e-6", *L1[2:]),
        train_eps=("2/255", "2.5/255", "3/255"),
    ),
    "ctbench-cifar10-8": Setting(about="CIFAR-10, eps 8/255", ratios=("0.7", "0.8", "0.9", "1.0"), alphas=LARGE),
    "ctbench-tinyimagenet-1": Setting(
        about="TinyImageNet, eps 1/255", ratios=("0.4", "0.5", "0.6", "0.7"), alphas=SMALL
    ),
}


def named(name: str, recipe: Recipe) -> Space:
    """The space of a name, for the method of a recipe.

    Raises:
        ValueError: there is no such space.
    """
    if name not in SETTINGS:
        raise ValueError(f"no space is called {name!r}: there are {', '.join(SETTINGS)}, a JSON file, or PATH=VALUES")
    setting = SETTINGS[name]
    grid = {"l1": setting.l1, "robust_weight": ROBUST_WEIGHT, "train_eps": setting.train_eps}
    return Space({path: Choices(texts) for path, texts in (grid | _of_method(setting, recipe)).items() if texts})


def _of_method(setting: Setting, recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The parameters of a method. The warm-up of STAPS is SABR with the same ratio."""
    method, warmed = recipe.method, "+warmup.ratio" if isinstance(recipe.warmup, SABR) else ""
    if isinstance(method, SABR):
        inner = {"method.inner.scale": SCALE} if isinstance(method.inner, TAPS) else {}
        return {f"method.ratio{warmed}": setting.ratios, **inner}
    if isinstance(method, TAPS):
        return {"method.scale": SCALE}
    return {"method.alpha": setting.alphas} if isinstance(method, MTLIBP) else {}


def read_space(options: Sequence[str], recipe: Recipe) -> Space:
    """The space of some options: names, and what `Space.of` takes. Raises the errors of both."""
    return Space.joined([Space.of([each]) if "=" in each or is_file(each) else named(each, recipe) for each in options])


def spaces() -> dict[str, str]:
    """What each named space is for."""
    return {name: f"CTBench, App. B.4: {setting.about}" for name, setting in SETTINGS.items()}
