"""The networks, batches and recipes that `device` measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.training_step import CLASSES, narrow_logits
from ctbench import attacks
from ctbench.datasets import Data, Images
from ctbench.methods import Method
from ctbench.methods.arow import ARoW
from ctbench.methods.coap import COAP
from ctbench.methods.colt import COLT
from ctbench.methods.ibp_r import IBPR
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.networks import CNN3
from ctbench.recipes import ctbench_cifar10, ctbench_mnist, digits
from ctbench.regions import Linf, RandomSegments
from ctbench.results import RunFolder
from ctbench.training import Recipe
from ctbench.training.blueprint import Blueprint
from ctbench.training.trainer import Trainer

PAPERS = ("ibp", "mtl_ibp", "crown_ibp", "sabr", "taps", "staps", "pgd", "edac", "standard")  # most wanted first


@dataclass(frozen=True)
class Setting:
    """A network with its batch, and the recipe of every method for it."""

    title: str
    shape: tuple[int, int, int]
    recipes: dict[str, Recipe]

    def data(self, count: int) -> Data:
        """Noise."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, *self.shape, generator=generator)
        images = Images(x, torch.randint(0, CLASSES, (count,), generator=generator))
        channels = self.shape[0]
        return Data(images, images, tuple("0123456789"), mean=(0.3,) * channels, std=(0.3,) * channels)

    def step(self, recipe: Recipe, device: torch.device, count: int | None = None) -> Callable[[], object]:
        """A step of a recipe at its full radius."""
        data = self.data(count or recipe.batch_size)
        model = self.model(recipe).to(device).train()
        trainer = Trainer(recipe, RunFolder(Path()), model, data, device)
        settings = recipe.at(recipe.epochs - 1, 0, trainer.steps)
        generator = torch.Generator(device).manual_seed(0)
        x, y = trainer.images.batch(slice(None), device)
        return lambda: trainer.stepper.step(x, y, settings, generator)

    def model(self, recipe: Recipe) -> nn.Module:
        """A network whose interval logits are about as wide as those of a trained one, on the CPU."""
        sample = self.data(4)
        model = Blueprint.of(recipe.network, sample).build(initialization=recipe.initialization)
        narrow_logits(model, sample, Linf(eps=recipe.final_eps if recipe.threat.name == "linf" else 0.1))
        return model


def papers(title: str, shape: tuple[int, int, int], module: Any, prefix: str) -> Setting:
    """CTBench's recipes, and the other methods in the setting of its IBP."""
    recipes = {name.replace("_", "-"): getattr(module, f"{prefix}_{name}")() for name in PAPERS}
    recipes = {name: replace(recipe, swa=None) for name, recipe in recipes.items()}  # it is not a part of a step
    base = replace(recipes["ibp"], shi=0.0, schedules=())
    one, eight = attacks.PGD(steps=1), attacks.PGD(steps=8)
    others: dict[str, Method] = {
        "cc-ibp": CCIBP(attack=one),
        "exp-ibp": ExpIBP(attack=one),
        "ibp-r": IBPR(attack=eight),
        "mart": MART(attack=eight),
        "arow": ARoW(attack=eight),
        "sam": SAM(inner=PGD(attack=eight)),
        "weight-smoothing": WeightSmoothing(),
        "coap, 10 projections": COAP(projections=10),
        "colt, stage 1": COLT(progress=1.6, attack=eight),
    }
    recipes |= {name: replace(base, method=method) for name, method in others.items()}
    segments, method = RandomSegments(eps=1.0, count=3), LineSearchTraining(attack=attacks.LineSearch(points=11))
    recipes["line-search, grid"] = replace(base, method=method, threat=segments)
    return Setting(title, shape, recipes)


def settings() -> list[Setting]:
    """The papers' networks and batches."""
    return [
        papers("cnn7, MNIST shape, batch 256", (1, 28, 28), ctbench_mnist, "mnist_03"),
        papers("cnn7, CIFAR shape, batch 128", (3, 32, 32), ctbench_cifar10, "cifar10_2"),
    ]


def tiny() -> list[Setting]:
    """The same methods on a network that a CPU trains in seconds."""
    setting = papers("cnn3 of width 2, 8x8, batch 8", (1, 8, 8), digits, "digits")
    exact: dict[str, Method] = {"coap": COAP(), "colt, stage 2": COLT(progress=2.6)}  # too large for cnn7
    base = replace(setting.recipes["ibp"], shi=0.0)
    recipes = setting.recipes | {name: replace(base, method=method) for name, method in exact.items()}
    small = {name: replace(recipe, network=CNN3(width=2), batch_size=8) for name, recipe in recipes.items()}
    return [replace(setting, recipes=small)]
