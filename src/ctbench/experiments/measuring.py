"""What is measured of a trial: its network is trained, and its errors are looked for.

standard_error    the share of test samples that are wrong
robust_error      of those that some point of the region turns: exact on segments; in balls, attacks look for such
                  points around what is right and not certified
certified_error   of those that COAP's bounds do not prove; never below the robust error
train_error       the standard error on the training samples
unstable          the share of unstable neurons on the training samples, by COAP's bounds
unstable_sum      the sum of these shares over the epochs

Followed over the epochs: the errors on test samples, and the cosine between the signal and the perturbations that an
attack of 10 steps finds on the training samples.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.analyses.alignment import cosine
from ctbench.analyses.neurons import neuron_states
from ctbench.attacks import APGD, adversarial_accuracy
from ctbench.attacks.exact_line_search import violation, worst_on_segments
from ctbench.datasets.synthetic import Synthetic
from ctbench.domains import coap
from ctbench.experiments.base import Trial
from ctbench.graph import Graph, Precisions
from ctbench.regions import Region, Star, Threat
from ctbench.specification import cross_entropy_at, margin_rows
from ctbench.training import TrainingDivergedError, train

CHUNK = 2_000_000  # numbers in the inputs that are looked at together


def measure(trial: Trial) -> dict[str, Any]:
    """The quantities of a trial; one that diverged has none, and says so."""
    recipe, course = trial.recipe, _Course(trial)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = train(recipe, out=f"{folder}/run", quiet=True, watch=course.note).model
    except TrainingDivergedError as error:
        return {"diverged": str(error)}
    data = recipe.dataset.load()
    found: dict[str, Any] = errors(model, *data.test[:], recipe.threat, attacks=trial.measures.attacks)
    x, y = data.train[:]
    with torch.no_grad():
        found["train_error"] = (model(x).argmax(1) != y).double().mean().item()
    unstable = course.epochs.pop("unstable")
    found |= {"unstable": unstable[-1], "unstable_sum": sum(unstable)}
    return found | ({"epochs": course.epochs} if trial.measures.followed else {})


def errors(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, attacks: tuple[str, ...]) -> dict[str, float]:
    """The standard, robust and certified error of a network, in double precision.

    Args:
        model: the network.
        x, y: samples, [N, *shape], and their labels, [N].
        threat: balls, or segments.
        attacks: as in `adversarial_accuracy`, for balls.
    """
    net = Precisions.of(model, x[:1]).exact
    wrong, turned, open_ = (torch.zeros(len(x), dtype=torch.bool) for _ in range(3))
    for some in torch.arange(len(x)).split(max(1, CHUNK // x[0].numel())):
        region = threat.region(x[some].double())
        wrong[some] = net(x[some].double()).argmax(1) != y[some]
        open_[some] = ~wrong[some] & ~_certified(net, region, y[some])
        if isinstance(region, Star):
            turned[some] = violation(net(worst_on_segments(net, region, y[some], violation)), y[some]) > 0
        elif bool(open_[some].any()):
            left = some[open_[some]]
            found = adversarial_accuracy(
                model,
                x[left],
                y[left],
                eps=threat.eps,
                norm=threat.name,
                clip=threat.clip,
                attacks=attacks,
                batch_size=len(left),
            )
            turned[left] = torch.tensor([by is not None for by in found.turned_by])
    named = {"standard_error": wrong, "robust_error": wrong | turned, "certified_error": wrong | open_}
    return {name: bad.double().mean().item() for name, bad in named.items()}


@torch.no_grad()
def _certified(net: Graph, region: Region, y: Tensor) -> Tensor:
    """Which samples COAP's bounds prove, [B] bool."""
    spec = margin_rows(y, net.classes, dtype=torch.float64)
    return (coap.lower_bounds(net, region, spec) > 0).all(1)


class _Course:
    """What is measured after each epoch."""

    def __init__(self, trial: Trial) -> None:
        data = trial.recipe.dataset.load()
        self.trial = trial
        self.x, self.y = data.train[:]
        self.test = data.test[: trial.measures.followed]
        self.epochs: dict[str, list[float]] = {"unstable": []}

    def note(self, epoch: int, model: nn.Module) -> None:
        threat = self.trial.recipe.threat
        net, region = Precisions.of(model, self.x[:1]).net, threat.region(self.x)
        found = {"unstable": neuron_states(net, region, boxes=coap.boxes(net, region)).unstable}
        if self.trial.measures.followed:
            found["cosine"] = self._cosine(net, region)
            found |= errors(model, *self.test, threat, attacks=("pgd",))
        for name, value in found.items():
            self.epochs.setdefault(name, []).append(value)

    def _cosine(self, net: Graph, region: Region) -> float:
        """That between perturbations of the training samples and the way to the other class."""
        dataset = self.trial.recipe.dataset
        if not isinstance(dataset, Synthetic):
            raise ValueError(f"the signal of {dataset.name} is not known: follow trials on synthetic data alone")
        generator = torch.Generator().manual_seed(self.trial.recipe.seed)
        found = APGD(steps=10)(cross_entropy_at(net, self.y), region, self.x, generator)
        return cosine(found - self.x, -dataset.signal(self.x, self.y))
