"""Methods as the papers that proposed them trained them, where that is not as in CTBench.

SABR: Müller et al. 2023, App. B and Table 3. TAPS and STAPS: Mao et al. 2023, App. D and Tables 2, 3 and 5; neither
their attack is told there, which is CTBench's here, nor the ratio of STAPS, which is SABR's. Both papers cut squares of
56 pixels out of TinyImageNet. IBP (Gowal et al. 2018) and CROWN-IBP (Zhang et al. 2020): their losses, whose weights go
from one term to the other while the radius grows, in the setting of CTBench, so without their own learning rates.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.datasets import TinyImageNet
from ctbench.datasets.tinyimagenet import CROPPED
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.sabr import SABR
from ctbench.recipes.columns import certified, taps
from ctbench.recipes.ctbench_cifar10 import cifar10_2_standard, cifar10_8_standard
from ctbench.recipes.ctbench_mnist import mnist_01_standard, mnist_03_standard
from ctbench.recipes.ctbench_tinyimagenet import tinyimagenet_standard
from ctbench.results import Published
from ctbench.training import Adam, Linear, Recipe, Schedule, Smooth

CROPPED_TINYIMAGENET = TinyImageNet(augmentation=CROPPED)


def _sabr(
    setting: Recipe, name: str, method: SABR, *, found: tuple[float, float], l1: float, shi: float = 0.5
) -> Recipe:
    """With one epoch of standard training before the radius grows."""
    start = replace(setting.ramp, start=1, end=21 if setting.epochs == 70 else 81)
    published = Published(natural=found[0], certified=found[1], source="Müller et al. 2023, Table 2")
    source = "Müller et al. 2023, Table 3"
    made = certified(setting, name, method, shi=shi, l1=l1, ramp=start, source=source, published=published)
    return replace(made, train_eps=None)


def mnist_01_sabr_original() -> Recipe:
    return _sabr(mnist_01_standard(), "mnist_01_sabr_original", SABR(ratio=0.4), found=(99.25, 98.06), l1=1e-5)


def mnist_03_sabr_original() -> Recipe:
    return _sabr(mnist_03_standard(), "mnist_03_sabr_original", SABR(ratio=0.6), found=(98.82, 93.38), l1=1e-6)


def cifar10_2_sabr_original() -> Recipe:
    method = SABR(ratio=0.1, shrink=0.8)
    return _sabr(cifar10_2_standard(), "cifar10_2_sabr_original", method, found=(79.52, 62.57), l1=1e-6)


def cifar10_8_sabr_original() -> Recipe:
    setting = replace(cifar10_8_standard(), epochs=180, optimizer=Adam(lr=5e-4, milestones=(140, 160)))
    return _sabr(setting, "cifar10_8_sabr_original", SABR(ratio=0.7), found=(52.00, 35.25), l1=0.0)


def tinyimagenet_sabr_original() -> Recipe:
    setting = replace(
        tinyimagenet_standard(),
        dataset=CROPPED_TINYIMAGENET,
        epochs=180,
        optimizer=Adam(lr=5e-4, milestones=(140, 160)),
    )
    return _sabr(setting, "tinyimagenet_sabr_original", SABR(ratio=0.4), found=(28.64, 20.34), l1=1e-6, shi=0.2)


def _taps(
    setting: Recipe,
    name: str,
    *,
    steps: int,
    relus: int,
    scale: float,
    found: tuple[float, float],
    l1: float,
    shi: float = 0.5,
    box: SABR | None = None,
) -> Recipe:
    """With IBP while the radius grows; STAPS, with SABR, if there is one that makes the box."""
    method = taps(steps, relus=relus, scale=scale)
    return certified(
        setting,
        name,
        replace(box, inner=method) if box else method,
        warmup=box or IBP(),
        shi=shi,
        l1=l1,
        train_eps=None,
        source=f"Mao et al. 2023, Table {5 if box else 3}",
        published=Published(natural=found[0], certified=found[1], source="Mao et al. 2023, Table 1"),
    )


def _of_mao(setting: Recipe) -> Recipe:
    """Their schedules (Table 2) and crops, where CTBench's are other ones."""
    if setting.dataset.name == "tinyimagenet":
        slower = Adam(lr=5e-4, milestones=(60, 70))
        return replace(setting, dataset=CROPPED_TINYIMAGENET, epochs=80, ramp=Smooth(start=0, end=20), optimizer=slower)
    return replace(setting, epochs=160, ramp=Smooth(start=0, end=80), optimizer=Adam(lr=5e-4, milestones=(120, 140)))


def mnist_01_taps_original() -> Recipe:
    setting, found = mnist_01_standard(), (99.19, 98.39)
    return _taps(setting, "mnist_01_taps_original", steps=10, relus=3, scale=5, found=found, l1=1e-6)


def mnist_03_taps_original() -> Recipe:
    setting, found = mnist_03_standard(), (97.94, 93.62)
    return _taps(setting, "mnist_03_taps_original", steps=5, relus=1, scale=5, found=found, l1=0.0)


def cifar10_2_taps_original() -> Recipe:
    setting, found = _of_mao(cifar10_2_standard()), (75.09, 61.56)
    return _taps(setting, "cifar10_2_taps_original", steps=8, relus=5, scale=5, found=found, l1=2e-6)


def cifar10_8_taps_original() -> Recipe:
    setting, found = _of_mao(cifar10_8_standard()), (49.76, 35.10)
    return _taps(setting, "cifar10_8_taps_original", steps=10, relus=1, scale=5, found=found, l1=2e-6)


def tinyimagenet_taps_original() -> Recipe:
    setting, found = _of_mao(tinyimagenet_standard()), (28.34, 20.82)
    return _taps(setting, "tinyimagenet_taps_original", steps=1, relus=1, scale=5, found=found, l1=0.0, shi=0.2)


def mnist_01_staps_original() -> Recipe:
    setting, box, found = mnist_01_standard(), SABR(ratio=0.4), (99.15, 98.37)
    name = "mnist_01_staps_original"
    return _taps(setting, name, steps=10, relus=1, scale=5, found=found, l1=2e-5, box=box)


def mnist_03_staps_original() -> Recipe:
    setting, box, found = mnist_03_standard(), SABR(ratio=0.6), (98.53, 93.51)
    name = "mnist_03_staps_original"
    return _taps(setting, name, steps=5, relus=1, scale=5, found=found, l1=2e-6, box=box)


def cifar10_2_staps_original() -> Recipe:
    setting, box, found = _of_mao(cifar10_2_standard()), SABR(ratio=0.1, shrink=0.8), (79.76, 62.98)
    name = "cifar10_2_staps_original"
    return _taps(setting, name, steps=8, relus=1, scale=2, found=found, l1=2e-6, box=box)


def cifar10_8_staps_original() -> Recipe:
    setting, box, found = _of_mao(cifar10_8_standard()), SABR(ratio=0.7), (52.82, 34.65)
    name = "cifar10_8_staps_original"
    return _taps(setting, name, steps=10, relus=1, scale=5, found=found, l1=2e-6, box=box)


def tinyimagenet_staps_original() -> Recipe:
    setting, box, found = _of_mao(tinyimagenet_standard()), SABR(ratio=0.4), (28.98, 22.16)
    name = "tinyimagenet_staps_original"
    return _taps(setting, name, steps=1, relus=2, scale=5, found=found, l1=1e-6, shi=0.2, box=box)


def mnist_03_ibp_original() -> Recipe:
    """Gowal et al. 2018: no regulariser, torch's initialisation, and half of the clean loss at the end."""
    return replace(
        mnist_03_standard(),
        name="mnist_03_ibp_original",
        method=IBP(),
        ramp=Linear(start=0, end=20),
        schedules=(Schedule(path="robust_weight", start_value=0.0, end_value=0.5, ramp=Linear(start=0, end=20)),),
        l1=0.0,
        source="Gowal et al. 2018, loss of section 3",
        published=None,
    )


def mnist_03_crown_ibp_original() -> Recipe:
    """Zhang et al. 2020: all margins, and from CROWN-IBP's bounds to intervals' while the radius grows."""
    return replace(
        mnist_03_ibp_original(),
        name="mnist_03_crown_ibp_original",
        method=CrownIBP(fused=False),
        schedules=(
            *mnist_03_ibp_original().schedules,
            Schedule(path="method.beta", start_value=1.0, end_value=0.0, ramp=Linear(start=0, end=20)),
        ),
        source="Zhang et al. 2020, loss of section 4",
        published=Published(natural=98.18, certified=92.98, source="Zhang et al. 2020, by Müller et al. 2023, Table 2"),
    )
