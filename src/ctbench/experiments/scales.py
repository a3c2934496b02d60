"""The sizes at which figures of trained networks are reproduced.

tiny     the 8x8 digits, networks of a few filters, a few epochs: seconds, to see that everything works
small    MNIST with the recipes `mnist_small_*`: minutes to hours on two cores
paper    the recipes of the papers: days on a GPU

A paper's setting is a data set and a radius, e.g. "cifar10_2". At the tiny and the small scale one data set stands
for all: there are two settings, a small radius and a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ctbench.experiments.budgets import paper_budgets, small_budgets, tiny_budgets
from ctbench.experiments.setting import Setting

T = TypeVar("T")
SMALL_RADII, LARGE_RADII = ("mnist_01", "cifar10_2", "tinyimagenet"), ("mnist_03", "cifar10_8")
SETTINGS = ("mnist_01", "mnist_03", "cifar10_2", "cifar10_8", "tinyimagenet")


@dataclass(frozen=True, kw_only=True)
class NetworkScale:
    """The size of networks, trainings and measurements.

    Args:
        name: on the command line.
        settings: what stands for each setting of the papers.
        sweep: changes of trainings that vary a field of a recipe.
        deep: changes of trainings that vary the split of TAPS: a network with several splits.
        shallow: changes of trainings whose worst cases are computed by exact programs.
        adversarial: changes of adversarial training in balls, with De Bartolomeis et al.
        line_search: changes of adversarial training on segments: fewer points of the line search.
        small_box: changes of SABR where its paper shows a network with a ratio of 0.05.
        splits: the numbers of ReLUs in the classifier of TAPS.
        samples: the number of test images of an analysis; None for all.
        certified: the number of test images that are certified; None for all.
        few: the same, where a figure has networks that are hard to certify.
        exact: the number of test images for exact programs.
        stages: the cascade of certified networks; those of standard and adversarial training have the fast one.
        timeout: the seconds for each image.
        points: the number of values on an axis; None for all.
        seeds: the number of seeds where a figure shows their spread.
        corruptions: "ours" or "published".
        attacks: those of robust errors in balls; on segments it is a line search.
        watched: the number of training images whose unstable neurons are counted after each epoch.
    """

    name: str
    settings: Mapping[str, Setting]
    sweep: tuple[str, ...] = ()
    deep: tuple[str, ...] = ()
    shallow: tuple[str, ...] = ()
    adversarial: tuple[str, ...] = ()
    line_search: tuple[str, ...] = ()
    small_box: tuple[str, ...] = ()
    splits: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    samples: int | None = None
    certified: int | None = None
    few: int | None = None
    exact: int | None = None
    stages: str = "complete"
    timeout: float = 1000.0
    points: int | None = None
    seeds: int = 3
    corruptions: str = "published"
    attacks: tuple[str, ...] = ("autoattack-plus",)
    watched: int = 100

    def distinct(self, *settings: str) -> list[str]:
        """The settings, without those for which another one stands already."""
        by_label = dict[str, str]()
        for setting in settings:
            by_label.setdefault(self.settings[setting].label, setting)
        return list(by_label.values())

    def some(self, values: Sequence[T]) -> list[T]:
        """A selection of `points` values, the first and the last among them."""
        if self.points is None or self.points >= len(values):
            return list(values)
        step = (len(values) - 1) / max(1, self.points - 1)
        return [values[round(step * number)] for number in range(self.points)]


def _pair(small: Setting, large: Setting) -> dict[str, Setting]:
    return {**dict.fromkeys(SMALL_RADII, small), **dict.fromkeys(LARGE_RADII, large)}


_SHORT = ("epochs=8", "ramp.end=5", "optimizer.milestones=[7]", "batch_size=96", "network.width=4")
TINY_NETWORKS = NetworkScale(
    name="tiny",
    settings=_pair(
        Setting(label="digits, eps 0.05", prefix="digits", changes=(*_SHORT, "threat.eps=0.05")),
        Setting(label="digits, eps 0.15", prefix="digits", changes=(*_SHORT, "threat.eps=0.15")),
    )
    | tiny_budgets(),
    deep=('network={"name": "cnn5", "width": 2, "hidden": 16}',),
    splits=(0, 1, 3),
    samples=60,
    certified=60,
    few=60,
    exact=6,
    stages="fast",
    timeout=2.0,
    points=3,
    seeds=2,
    corruptions="ours",
    attacks=("pgd",),
    watched=20,
)
SMALL_NETWORKS = NetworkScale(
    name="small",
    settings=_pair(
        Setting(label="MNIST, eps 0.1", prefix="mnist_small"), Setting(label="MNIST, eps 0.3", prefix="mnist_small_03")
    )
    | small_budgets(),
    sweep=("train_samples=20000", "epochs=5", "ramp.end=3", "optimizer.milestones=[4]"),
    deep=('network={"name": "cnn5", "width": 4, "hidden": 64}',),
    adversarial=('ramp={"name": "linear", "start": 0, "end": 2.5}',),  # at linf 0.3 and 0.4 it learns nothing otherwise
    line_search=("method.attack.points=21",),
    splits=(0, 1, 2, 3, 4),
    samples=1000,
    certified=1000,
    few=200,
    exact=40,
    timeout=5.0,
    points=5,
    corruptions="ours",
    attacks=("apgd-ce", "apgd-dlr"),
)
PAPER_NETWORKS = NetworkScale(
    name="paper",
    settings={
        "mnist_01": Setting(label="MNIST, eps 0.1", prefix="mnist_01", originals=True),
        "mnist_03": Setting(label="MNIST, eps 0.3", prefix="mnist_03", originals=True),
        "cifar10_2": Setting(label="CIFAR-10, eps 2/255", prefix="cifar10_2", originals=True),
        "cifar10_8": Setting(label="CIFAR-10, eps 8/255", prefix="cifar10_8", originals=True),
        "tinyimagenet": Setting(label="TinyImageNet, eps 1/255", prefix="tinyimagenet", originals=True),
    }
    | paper_budgets(),
    shallow=('network={"name": "cnn3"}',),
    small_box=("method.ratio=0.05",),
    exact=1000,
)
NETWORK_SCALES = {scale.name: scale for scale in (TINY_NETWORKS, SMALL_NETWORKS, PAPER_NETWORKS)}
