"""Methods with the training settings of the papers that proposed them, where CTBench uses others.

SABR: Müller et al. 2023, App. B and Table 3. TAPS and STAPS: Mao et al. 2023, App. D and Tables 2, 3 and 5. That paper
does not state the attack, which is CTBench's here, or the ratio of STAPS, which is SABR's. Both papers cut squares of
56 pixels out of TinyImageNet. IBP (Gowal et al. 2018) and CROWN-IBP (Zhang et al. 2020): their losses, whose weights
move from one term to the other while the radius grows, in the setting of CTBench, so with CTBench's learning rates.

In these points the recipes of SABR, TAPS and STAPS differ from their papers:

- Batch norms use the statistics of the clean batch in the whole step, also in the attack (CTBench, section 4.1), where
  SABR has them in evaluation mode (App. B). Their statistics at test time are those of the training set (PreciseBN).
- The gradient of TAPS has no factor 2/(1+w), with w = w_TAPS (Mao et al. 2023, App. A): it has the same direction, and
  is (1+w)/2 times as long, 3 times at w = 5, against the regularisers and the bound of the gradient norm.
- The weights are those of the last epoch. Mao et al. 2023 select by TAPS accuracy (App. E).
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import TinyImageNet
from ctbench.datasets.tinyimagenet import CROPPED
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.sabr import SABR
from ctbench.recipes.ctbench_cifar10 import cifar10_2_standard, cifar10_8_standard
from ctbench.recipes.ctbench_mnist import mnist_01_standard, mnist_03_standard
from ctbench.recipes.ctbench_tinyimagenet import tinyimagenet_standard
from ctbench.recipes.tables import certified, taps
from ctbench.results import Published, published_result
from ctbench.training import Adam, LinearRamp, Recipe, Schedule, SmoothRamp

CROPPED_TINYIMAGENET = TinyImageNet(augmentation=CROPPED)


def _mueller(dataset: str, eps: float, method: str = "SABR") -> Published:
    return published_result(dataset, "linf", eps, method, paper="Müller et al. 2023").accuracies


def _mao(dataset: str, eps: float, method: str) -> Published:
    return published_result(dataset, "linf", eps, method, paper="Mao et al. 2023").accuracies


def _normalizes(setting: Recipe) -> bool:
    """Whether networks begin with a normalisation: in both papers on all data except MNIST (App. B; App. D.2)."""
    return setting.dataset.name != "mnist"


def _sabr(setting: Recipe, method: SABR, *, l1: float, published: Published, shi: float = 0.5) -> Recipe:
    """Return a recipe of SABR with one epoch of standard training before the radius grows."""
    return certified(
        setting,
        method,
        normalize=_normalizes(setting),
        shi=shi,
        l1=l1,
        train_eps=None,
        ramp=replace(setting.ramp, start=1, end=21 if setting.epochs == 70 else 81),
        source="Müller et al. 2023, Table 3",
        published=published,
    )


def mnist_01_sabr_original() -> Recipe:
    return _sabr(mnist_01_standard(), SABR(ratio=0.4), l1=1e-5, published=_mueller("mnist", 0.1))


def mnist_03_sabr_original() -> Recipe:
    return _sabr(mnist_03_standard(), SABR(ratio=0.6), l1=1e-6, published=_mueller("mnist", 0.3))


def cifar10_2_sabr_original() -> Recipe:
    method = SABR(ratio=0.1, shrink=0.8)
    return _sabr(cifar10_2_standard(), method, l1=1e-6, published=_mueller("cifar10", 2 / 255, "SABR with shrinking"))


def cifar10_8_sabr_original() -> Recipe:
    setting = replace(cifar10_8_standard(), epochs=180, optimizer=Adam(lr=5e-4, milestones=(140, 160)))
    return _sabr(setting, SABR(ratio=0.7), l1=0.0, published=_mueller("cifar10", 8 / 255))


def tinyimagenet_sabr_original() -> Recipe:
    setting = replace(
        tinyimagenet_standard(),
        dataset=CROPPED_TINYIMAGENET,
        epochs=180,
        optimizer=Adam(lr=5e-4, milestones=(140, 160)),
    )
    return _sabr(setting, SABR(ratio=0.4), l1=1e-6, shi=0.2, published=_mueller("tinyimagenet", 1 / 255))


def _taps(
    setting: Recipe,
    *,
    steps: int,
    relus: int,
    scale: float,
    l1: float,
    published: Published,
    shi: float = 0.5,
    box: SABR | None = None,
) -> Recipe:
    """Return a recipe of TAPS with IBP while the radius grows; if `box` is given, of STAPS, with SABR in that time."""
    method = taps(steps, relus=relus, scale=scale)
    return certified(
        setting,
        replace(box, inner=method) if box else method,
        normalize=_normalizes(setting),
        warmup=box or IBP(),
        shi=shi,
        l1=l1,
        train_eps=None,
        source=f"Mao et al. 2023, Table {5 if box else 3}",
        published=published,
    )


def _of_mao(setting: Recipe) -> Recipe:
    """Return a setting of CTBench with the schedule of Table 2, and with crops."""
    if setting.dataset.name == "tinyimagenet":
        slower = Adam(lr=5e-4, milestones=(60, 70))
        return replace(
            setting, dataset=CROPPED_TINYIMAGENET, epochs=80, ramp=SmoothRamp(start=0, end=20), optimizer=slower
        )
    return replace(
        setting, epochs=160, ramp=SmoothRamp(start=0, end=80), optimizer=Adam(lr=5e-4, milestones=(120, 140))
    )


def mnist_01_taps_original() -> Recipe:
    return _taps(mnist_01_standard(), steps=10, relus=3, scale=5, l1=1e-6, published=_mao("mnist", 0.1, "TAPS"))


def mnist_03_taps_original() -> Recipe:
    return _taps(mnist_03_standard(), steps=5, relus=1, scale=5, l1=0.0, published=_mao("mnist", 0.3, "TAPS"))


def cifar10_2_taps_original() -> Recipe:
    return _taps(
        _of_mao(cifar10_2_standard()),
        steps=8,
        relus=5,
        scale=5,
        l1=2e-6,
        published=_mao("cifar10", 2 / 255, "TAPS"),
    )


def cifar10_8_taps_original() -> Recipe:
    return _taps(
        _of_mao(cifar10_8_standard()),
        steps=10,
        relus=1,
        scale=5,
        l1=2e-6,
        published=_mao("cifar10", 8 / 255, "TAPS"),
    )


def tinyimagenet_taps_original() -> Recipe:
    return _taps(
        _of_mao(tinyimagenet_standard()),
        steps=1,
        relus=1,
        scale=5,
        l1=0.0,
        shi=0.2,
        published=_mao("tinyimagenet", 1 / 255, "TAPS"),
    )


def mnist_01_staps_original() -> Recipe:
    return _taps(
        mnist_01_standard(),
        box=SABR(ratio=0.4),
        steps=10,
        relus=1,
        scale=5,
        l1=2e-5,
        published=_mao("mnist", 0.1, "STAPS"),
    )


def mnist_03_staps_original() -> Recipe:
    return _taps(
        mnist_03_standard(),
        box=SABR(ratio=0.6),
        steps=5,
        relus=1,
        scale=5,
        l1=2e-6,
        published=_mao("mnist", 0.3, "STAPS"),
    )


def cifar10_2_staps_original() -> Recipe:
    return _taps(
        _of_mao(cifar10_2_standard()),
        box=SABR(ratio=0.1, shrink=0.8),
        steps=8,
        relus=1,
        scale=2,
        l1=2e-6,
        published=_mao("cifar10", 2 / 255, "STAPS"),
    )


def cifar10_8_staps_original() -> Recipe:
    return _taps(
        _of_mao(cifar10_8_standard()),
        box=SABR(ratio=0.7),
        steps=10,
        relus=1,
        scale=5,
        l1=2e-6,
        published=_mao("cifar10", 8 / 255, "STAPS"),
    )


def tinyimagenet_staps_original() -> Recipe:
    return _taps(
        _of_mao(tinyimagenet_standard()),
        box=SABR(ratio=0.4),
        steps=1,
        relus=2,
        scale=5,
        l1=1e-6,
        shi=0.2,
        published=_mao("tinyimagenet", 1 / 255, "STAPS"),
    )


def mnist_03_ibp_original() -> Recipe:
    """Gowal et al. 2018: no regulariser, half of the clean loss at the end, and CTBench's Kaiming initialisation."""
    return replace(
        mnist_03_standard(),
        method=IBP(),
        ramp=LinearRamp(start=0, end=20),
        schedules=(Schedule(path="robust_weight", start_value=0.0, end_value=0.5, ramp=LinearRamp(start=0, end=20)),),
        l1=0.0,
        source="Gowal et al. 2018, loss of section 3",
        published=None,
    )


def mnist_03_crown_ibp_original() -> Recipe:
    """Zhang et al. 2020: all margins, and from CROWN-IBP's bounds to intervals' while the radius grows."""
    return replace(
        mnist_03_ibp_original(),
        method=CrownIBP(fused=False),
        schedules=(
            *mnist_03_ibp_original().schedules,
            Schedule(path="method.beta", start_value=1.0, end_value=0.0, ramp=LinearRamp(start=0, end=20)),
        ),
        source="Zhang et al. 2020, loss of section 4",
        published=published_result(
            "mnist", "linf", 0.3, "CROWN-IBP", paper="Müller et al. 2023", by="Zhang et al. 2020"
        ).accuracies,
    )
