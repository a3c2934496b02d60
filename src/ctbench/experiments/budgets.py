"""The settings of De Bartolomeis et al.: a data set with a norm and a radius, e.g. "mnist-l2-0.75"; and segments.

At the scale of the papers they are the recipes `robustacc_*`. At the others, radii on MNIST stand for those on all data
sets, in the networks of `mnist_small_l2_*`. At the small scale these learn 10,000 images in 5 epochs of small batches,
because an epoch of COAP on 60,000 takes minutes; on segments they learn 5,000 in 3 epochs, at a quarter of the paper's
radius, where COAP still learns. The tiny scale has half the radius on the digits, and a tenth of it on segments.

"Certified defences can hurt generalisation" has more radii in the l2 norm, up to 1.5 on MNIST. Its text does not give
those on TinyImageNet: half of and twice the radius of the other paper are our choice.
"""

from __future__ import annotations

from ctbench.experiments.setting import Setting
from ctbench.recipes.robust_accuracy import BUDGETS, prefix

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "tinyimagenet": "TinyImageNet"}
MORE = {"mnist-l2-0.25": "l2-0.5", "mnist-l2-1.5": "l2-0.5"} | {
    f"tinyimagenet-l2-{radius}/255": "l2-5/255" for radius in ("2.5", "10")
}  # settings without recipes of their own, and whose recipes they take
STAND_IN = {
    "linf": {"1/255": "0.1", "2/255": "0.2", "4/255": "0.3", "8/255": "0.4"},
    "l2": {
        **{"9/255": "0.5", "18/255": "0.75", "36/255": "1", "72/255": "1.25"},
        **{"2.5/255": "0.5", "5/255": "0.75", "10/255": "1"},
    },
}  # radii on MNIST that stand for those on other data sets
SEGMENTS = {"mnist-segments": "MNIST, segments", "cifar10-segments": "CIFAR-10, segments"}

KEYS = (*(f"{dataset}-{budget}" for dataset, budgets in BUDGETS.items() for budget in budgets), *MORE)
SHORT_SEGMENTS = (
    'network={"name": "conv-small", "width": 4, "hidden": 50}',
    'ramp={"name": "linear", "start": 0, "end": 1.5}',
    "optimizer.milestones=[2]",
    "epochs=3",
)
DIGITS = ('dataset={"name": "digits"}', "normalize=false")
TINY = (*DIGITS, "epochs=15", "batch_size=96", "optimizer.milestones=[12]", "optimizer.lr=0.005")
TINY_SEGMENTS = (
    *(*DIGITS, *SHORT_SEGMENTS, "batch_size=96", "threat.eps=2", "accumulate=1", "train_samples=480"),
    *("optimizer.milestones=[5]", "epochs=6", "optimizer.lr=0.005"),
)


def keys(dataset: str, norm: str, *, more: bool = False) -> list[str]:
    """The settings of a data set in a norm, by their radii; with `more`, also those that have no recipes."""
    keys = [key for key in KEYS if key.startswith(f"{dataset}-{norm}-") and (more or key not in MORE)]
    return sorted(keys, key=lambda key: _radius(_parts(key)[2]))


def paper_budgets() -> dict[str, Setting]:
    """The settings, at the scale of the papers."""
    settings = {}
    for key in KEYS:
        dataset, norm, radius = _parts(key)
        budget, changes = MORE.get(key, f"{norm}-{radius}"), (f"threat.eps={radius}",) if key in MORE else ()
        label = f"{TITLES[dataset]}, {norm} eps {radius}"
        settings[key] = Setting(
            label=label, prefix=prefix(dataset, budget), changes=changes, followed=dataset != "tinyimagenet"
        )
    segments = {
        key: Setting(label=label, prefix=f"robustacc_{key.replace('-', '_')}", followed=True)
        for key, label in SEGMENTS.items()
    }
    return settings | segments


def small_budgets() -> dict[str, Setting]:
    """The same on MNIST, in small networks."""
    short = ("train_samples=10000", "batch_size=64", "epochs=5", "ramp.end=2.5", "optimizer.milestones=[4]")
    return _stand_ins("MNIST", 1.0, short, (*SHORT_SEGMENTS, "accumulate=1", "train_samples=5000", "threat.eps=5"))


def tiny_budgets() -> dict[str, Setting]:
    """The same on digits."""
    return _stand_ins("digits", 0.5, TINY, TINY_SEGMENTS)


def _stand_ins(title: str, share: float, changes: tuple[str, ...], of_segments: tuple[str, ...]) -> dict[str, Setting]:
    """The settings on one data set, at a share of the radii of MNIST."""
    settings = {}
    for key in KEYS:
        dataset, norm, radius = _parts(key)
        eps = share * float(radius if dataset == "mnist" else STAND_IN[norm][radius])
        linf = ('threat={"name": "linf", "eps": 0.1}',) if norm == "linf" else ()
        settings[key] = Setting(
            label=f"{title}, {norm} eps {eps:g}",
            prefix="mnist_small_l2",
            changes=(*changes, *linf, f"threat.eps={eps:g}"),
            followed=True,
        )
    segments = Setting(
        label=f"{title}, segments", prefix="robustacc_mnist_segments", changes=of_segments, followed=True
    )
    return settings | dict.fromkeys(SEGMENTS, segments)


def _parts(key: str) -> tuple[str, str, str]:
    """The data set, the norm and the radius of a setting."""
    dataset, norm, radius = key.split("-")
    return dataset, norm, radius


def _radius(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)
