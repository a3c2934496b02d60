"""One column of De Bartolomeis et al. 2023, Table 4, in minutes on a core: MNIST in the l2 norm, eps 0.75.

AT (method "pgd"), COAP, CROWN-IBP, IBP and FAST-IBP in the threat models of robust_accuracy.py, but with a narrow
conv-small, one short schedule for all, 5 steps of the attack, and 10 projections: the paper's 50 would
make COAP slower.
"""

from __future__ import annotations

from dataclasses import replace

from ctbench.attacks import APGD
from ctbench.datasets import MNIST
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.networks import ConvSmall
from ctbench.regions import L2
from ctbench.training import Adam, ConstantRamp, LinearRamp, Recipe, Schedule, SmoothRamp


def mnist_small_l2_pgd() -> Recipe:
    return Recipe(
        dataset=MNIST(),
        network=ConvSmall(width=4, hidden=50),
        threat=L2(eps=0.75),
        method=PGD(attack=APGD(steps=5)),
        ramp=ConstantRamp(),
        optimizer=Adam(lr=2e-3, milestones=(2,)),
        epochs=3,
        batch_size=128,
        source="ctbench: De Bartolomeis et al. 2023, App. A.1, made small",
    )


def mnist_small_l2_coap() -> Recipe:
    return replace(
        mnist_small_l2_pgd(),
        threat=L2(eps=0.75, clip=None),
        method=COAP(projections=10),
        ramp=LinearRamp(start=0, end=1.5),
    )


def mnist_small_l2_crown_ibp() -> Recipe:
    return replace(
        mnist_small_l2_coap(),
        method=CrownIBP(),
        ramp=SmoothRamp(start=0, end=1.5),
        schedules=(Schedule(path="method.beta", start_value=1.0, end_value=0.0, ramp=SmoothRamp(start=0, end=1.5)),),
    )


def mnist_small_l2_ibp() -> Recipe:
    return replace(mnist_small_l2_crown_ibp(), method=IBP(), schedules=())


def mnist_small_l2_fast_ibp() -> Recipe:
    network = ConvSmall(width=4, hidden=50, batch_norm=True)
    return replace(mnist_small_l2_ibp(), network=network, shi=0.5, initialization="shi")
