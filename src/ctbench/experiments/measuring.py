"""The measurements of a trial: train its network, and compute its errors.

standard_error    the share of test samples that are wrong
robust_error      the share of test samples that are wrong somewhere in the region: exact on segments; in balls, attacks
                  search for such points around samples that are right and not certified
certified_error   the share of test samples that COAP's bounds do not prove; never below the robust error
train_error       the standard error on the training samples
unstable          the share of unstable neurons on the training samples, by COAP's bounds
unstable_sum      the sum of these shares over the epochs

After each epoch, for `followed` test samples: the three errors (in balls by PGD only). Also the cosine between the
signal and the perturbations that Auto-PGD with 10 steps finds on the training samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.analyses.alignment import cosine
from ctbench.analyses.neurons import neuron_states
from ctbench.attacks import APGD, adversarial_accuracy
from ctbench.attacks.exact_line_search import worst_on_segments
from ctbench.datasets import Data
from ctbench.datasets.synthetic import Synthetic
from ctbench.domains import coap
from ctbench.experiments.base import Trial
from ctbench.graph import Graph, Precisions, freeze, trace
from ctbench.regions import Region, SegmentUnion, Threat
from ctbench.specification import cross_entropy_at, margin_rows, violation
from ctbench.training import Recipe, TrainingDivergedError, train

CHUNK = 2_000_000  # the maximal number of entries in the inputs of a batch


def measure(trial: Trial) -> dict[str, Any]:
    """The quantities of a trial, or only "diverged" with the error message if training diverged."""
    data, epochs = trial.recipe.dataset.load(), list[dict[str, float]]()
    graph: Graph | None = None

    def on_epoch(metrics: Mapping[str, float], model: nn.Module) -> None:
        nonlocal graph
        if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
            raise TrainingDivergedError(f"the last step of epoch {metrics['epoch']:g} made weights that are not finite")
        graph = graph or trace(model, data.input_shape)
        epochs.append(_after_an_epoch(trial, data, model, graph))

    try:
        with tempfile.TemporaryDirectory() as folder:
            model = train(trial.recipe, out=f"{folder}/run", quiet=True, on_epoch=on_epoch).model
    except TrainingDivergedError as error:
        return {"diverged": str(error)}
    unstable = [epoch.pop("unstable") for epoch in epochs]
    quantities: dict[str, Any] = {
        **errors(model, *data.test[:], trial.recipe.threat, attacks=trial.measures.attacks),
        "train_error": _standard_error(model, *data.train[:]),
        "unstable": unstable[-1],
        "unstable_sum": sum(unstable),
    }
    if trial.measures.followed:
        quantities["epochs"] = {name: [epoch[name] for epoch in epochs] for name in epochs[0]}
    return quantities


def errors(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, attacks: tuple[str, ...]) -> dict[str, float]:
    """The standard, robust and certified error of a network, in double precision.

    Args:
        model: the network.
        x, y: samples, [N, *shape], and their labels, [N].
        threat: balls, or segments.
        attacks: the attacks of `adversarial_accuracy`, for balls.
    """
    size, net = max(1, CHUNK // x[0].numel()), Precisions.of(model, x[:1]).proof
    parts = [_verdicts(model, net, *some, threat, attacks) for some in zip(x.split(size), y.split(size), strict=True)]
    wrong, falsified, unproved = torch.cat(parts, dim=1).double().mean(dim=1).tolist()
    return {"standard_error": wrong, "robust_error": falsified, "certified_error": unproved}


def _verdicts(model: nn.Module, net: Graph, x: Tensor, y: Tensor, threat: Threat, attacks: tuple[str, ...]) -> Tensor:
    """Which samples are wrong, wrong somewhere in the region, and not proved, [3, B]."""
    region = threat.region(x.double())
    wrong = net(x.double()).argmax(1) != y
    margins = coap.lower_bounds(net, region, margin_rows(y, net.classes, dtype=torch.float64))
    unproved = wrong | ~(margins > 0).all(1)
    undecided, falsified = unproved & ~wrong, wrong.clone()
    if bool(undecided.any()):
        falsified[undecided] = _falsified(model, net, x[undecided], y[undecided], threat, attacks)
    return torch.stack([wrong, falsified, unproved])


def _falsified(model: nn.Module, net: Graph, x: Tensor, y: Tensor, threat: Threat, attacks: tuple[str, ...]) -> Tensor:
    """Which samples, all right at the clean input, are wrong at some point of the region, [B]."""
    region = threat.region(x.double())
    if isinstance(region, SegmentUnion):
        return violation(net(worst_on_segments(net, region, y, violation)), y) > 0
    evaluation = adversarial_accuracy(model, x, y, threat, attacks=attacks, batch_size=len(x))
    return torch.tensor([attack is not None for attack in evaluation.falsified_by])


@torch.no_grad()
def _standard_error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) != y).double().mean())


@torch.no_grad()
def _after_an_epoch(trial: Trial, data: Data, model: nn.Module, graph: Graph) -> dict[str, float]:
    """The share of unstable neurons, and the other quantities that are followed over the epochs."""
    recipe, count = trial.recipe, trial.measures.followed
    x, y = data.train[:]
    net, region = freeze(graph, x[:1])[0], recipe.threat.region(x)
    quantities = {"unstable": neuron_states(net, region, boxes=coap.boxes(net, region)).unstable}
    if count:
        quantities |= errors(model, *data.test[:count], recipe.threat, attacks=("pgd",))
        quantities["cosine"] = _cosine(recipe, net, region, x, y)
    return quantities


def _cosine(recipe: Recipe, net: Graph, region: Region, x: Tensor, y: Tensor) -> float:
    """The mean cosine between perturbations of the training samples and the direction to the other class."""
    if not isinstance(recipe.dataset, Synthetic):
        raise ValueError(f"the signal of {recipe.dataset.name} is not known: only follow trials on synthetic data")
    generator = torch.Generator().manual_seed(recipe.seed)
    points = APGD(steps=10)(cross_entropy_at(net, y), region, x, generator)
    return cosine(points - x, -recipe.dataset.signal(x, y))
