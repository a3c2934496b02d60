"""A training step of every method on cnn7 (MNIST shape, batch 32), beside a plain torch step of the same network.

The plain step is one forward and one backward pass and Adam. IBP needs three such passes: the clean one, which makes
the statistics of the batch norms and the natural loss, the centres and the radii; so 3 is the floor of its ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._timing import medians
from ctbench import attacks
from ctbench.datasets import MNIST, Data, Images
from ctbench.domains import interval
from ctbench.graph import freeze, trace
from ctbench.methods import Method
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import CNN7
from ctbench.regions import Linf
from ctbench.results import RunFolder
from ctbench.training import Recipe, Smooth
from ctbench.training.blueprint import Blueprint
from ctbench.training.loop import Training

BATCH, STEPS, ROUNDS = 32, 5, 15
LOGIT_RADIUS = 5.0

# forward passes of the whole network in a step's formula, each with its backward pass
METHODS: dict[str, tuple[Method, int]] = {
    "standard": (Standard(), 1),
    "ibp": (IBP(), 3),
    "pgd, 5 steps": (PGD(attack=attacks.PGD(steps=STEPS)), 2 + STEPS),
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    images = Images(
        torch.rand(BATCH, 1, 28, 28, generator=generator), torch.randint(0, 10, (BATCH,), generator=generator)
    )
    data = Data(train=images, test=images, class_names=tuple("0123456789"), mean=(0.1307,), std=(0.3081,))
    with TemporaryDirectory() as folder:
        contenders = {"plain torch": _plain_step(data)}
        for name, (method, _) in METHODS.items():
            contenders[name] = _step(method, data, RunFolder(Path(folder)))
        seconds = medians(contenders, rounds=ROUNDS)
    plain = seconds["plain torch"]
    print(f"\ntraining step, cnn7 with batch norm, MNIST shape, batch {BATCH}, eps 0.3")
    print(f"{'':14}{'ms':>8}{'x plain':>10}{'passes':>9}")
    print(f"{'plain torch':14}{1000 * plain:8.0f}{1:10.2f}{1:9}")
    for name, (_, passes) in METHODS.items():
        print(f"{name:14}{1000 * seconds[name]:8.0f}{seconds[name] / plain:10.2f}{passes:9}")


def _plain_step(data: Data) -> Callable[[], object]:
    model = Blueprint.of(CNN7(), data).build().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-8, fused=True)
    x, y = data.train[:]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _step(method: Method, data: Data, folder: RunFolder) -> Callable[[], object]:
    recipe = Recipe(
        name="benchmark",
        dataset=MNIST(),
        network=CNN7(),
        threat=Linf(eps=0.3),
        method=method,
        robust_weight=0.5,
        ramp=Smooth(start=0, end=0),
        initialization="shi",
        epochs=1,
        batch_size=BATCH,
    )
    model = Blueprint.of(recipe.network, data).build(initialization="shi")
    _narrow_logits(model, data)
    training = Training(recipe, folder, model, data, torch.device("cpu"))
    for group in training.optimizer.param_groups:
        group["lr"] = 1e-8  # the network stays put, so every step does the same work
    x, y = data.train[:]
    generator = torch.Generator().manual_seed(0)
    return lambda: training.step(x, y, eps=0.3, epoch=0, number=0, generator=generator)


@torch.no_grad()
def _narrow_logits(model: nn.Module, data: Data) -> None:
    """Scale the last layer so that interval logits are about as wide as in a trained network.

    Untrained, they are so wide that the loss saturates: its gradients are denormal numbers, which are slow to compute
    with, and nothing like those of training.
    """
    x, _ = data.train[:]
    net, _ = freeze(trace(model, data.input_shape), x, training=True)
    width = interval.boxes(net, Linf(eps=0.3).region(x))[-1].radius.mean()
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight *= LOGIT_RADIUS / width
