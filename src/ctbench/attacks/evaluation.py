"""Adversarial accuracy: the share of samples that are classified correctly, and that no attack falsifies.

    accuracy = |{i : argmax z(x_i) = y_i, and min over k of z_y(x') - z_k(x') >= 0 at all points x' found for i}| / N

Each attack gets the samples that withstood the attacks before it, and searches in the precision of the network. A point
falsifies a sample if its projection onto the exact region is misclassified in double precision.

    pgd              PGD of 40 steps on the smallest margin, from 3 starts
    apgd-ce          Auto-PGD of 100 steps on the cross-entropy, from 5 starts
    apgd-dlr         the same on the difference of logits ratio (DLR)
    apgd-t           the same on the targeted DLR (on the targeted margin for fewer than four classes), from 1 start for
                     each of the 9 best other classes
    line-search      the smallest margin along segments
    autoattack       the parts of AutoAttack (of the package pyautoattack), each as an attack, e.g. autoattack/square
    autoattack-plus  the parts of AA+

Any other `Attack` has its own name here. It runs with its defaults, on the smallest margin.

    adversarial_accuracy(model, x, y, eps=0.1, attacks=("pgd", "autoattack")).adversarial_accuracy
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ctbench.attacks.apgd import APGD
from ctbench.attacks.autoattack import AutoAttack
from ctbench.attacks.base import Attack, Objective
from ctbench.attacks.line_search import LineSearch, segments
from ctbench.attacks.pgd import PGD
from ctbench.graph import Graph, Precisions
from ctbench.members import members, required_fields
from ctbench.precision import full_float32
from ctbench.regions import Region, Threat
from ctbench.regions.box import Radii
from ctbench.regions.lookup import threat_or_linf
from ctbench.specification import (
    check_labels,
    check_samples,
    cross_entropy_at,
    dlr_at,
    margins,
    targeted_dlr_at,
    targeted_margin_at,
    violation_at,
)

# a network, regions, inputs [B, *shape], labels [B] and a random generator to points, [B, *shape]
Search = Callable[[Graph, Region, Tensor, Tensor, torch.Generator], Tensor]
VERSIONS: dict[str, Literal["standard", "plus"]] = {"autoattack": "standard", "autoattack-plus": "plus"}
TARGETS = 9  # the maximal number of classes that a targeted attack tries
DEFAULT = ("pgd", "apgd-ce", "apgd-dlr", "apgd-t")


@dataclass(frozen=True)
class Round:
    """The result of one attack."""

    attack: str
    tried: int  # the number of attacked samples
    falsified: tuple[int, ...]  # the positions of the samples that the attack falsified, ascending
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """The results of several attacks on N samples."""

    labels: tuple[int, ...]
    predictions: tuple[int, ...]  # at the clean inputs; -1 where the logits are not finite
    rounds: tuple[Round, ...]

    @property
    def natural_accuracy(self) -> float:
        """The share of samples that are right at the clean input."""
        return self._right / len(self.labels)

    @property
    def adversarial_accuracy(self) -> float:
        """The share of samples that are right, and that no attack falsified."""
        return self._without(self.rounds)

    @property
    def accuracies(self) -> dict[str, float]:
        """By attack: the share of samples that are right, and that neither it nor an attack before it falsified."""
        return {done.attack: self._without(self.rounds[:count]) for count, done in enumerate(self.rounds, start=1)}

    @property
    def separate_accuracies(self) -> dict[str, float]:
        """By attack: the share of samples that are right, and that it did not falsify. Comparable only with `alone`."""
        return {done.attack: self._without((done,)) for done in self.rounds}

    @property
    def falsified_by(self) -> tuple[str | None, ...]:
        """By sample: the first attack that falsified it; None if no attack did, or if it was already wrong."""
        first = {place: done.attack for done in reversed(self.rounds) for place in done.falsified}
        return tuple(first.get(place) for place in range(len(self.labels)))

    @property
    def seconds(self) -> float:
        return sum(done.seconds for done in self.rounds)

    def records(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A record for each sample: its index in the data set, label, clean prediction, and the attack that falsified
        it."""
        columns = zip(indices, self.labels, self.predictions, self.falsified_by, strict=True)
        return [dict(zip(("index", "label", "prediction", "attack"), column, strict=True)) for column in columns]

    @property
    def _right(self) -> int:
        return sum(label == said for label, said in zip(self.labels, self.predictions, strict=True))

    def _without(self, rounds: Sequence[Round]) -> float:
        falsified = {place for done in rounds for place in done.falsified}
        return (self._right - len(falsified)) / len(self.labels)


@full_float32
def adversarial_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat | None = None,
    *,
    eps: Radii | None = None,
    attacks: Sequence[str] = DEFAULT,
    steps: int | None = None,
    restarts: int | None = None,
    alone: bool = False,
    proved: Collection[int] = (),
    seed: int = 0,
    batch_size: int = 256,
    replay: Callable[[Tensor], Tensor] | None = None,
    on_batch: Callable[[str, int], None] | None = None,
) -> Evaluation:
    """Attack each sample that the network classifies correctly, until an attack falsifies it.

    The network is evaluated in eval mode, whatever mode it is in. An attack does not depend on the attacks before it,
    except that they leave it fewer samples.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [N, *shape].
        y: labels, [N] integers.
        threat: what may be done to an input, e.g. Linf(8 / 255) or L2(0.5).
        eps: the short form of threat=Linf(eps), in [0, 1] pixel space.
        attacks: the names of the attacks, in the order in which they run; see above.
        steps: the steps of "pgd" and "apgd-*", instead of those above.
        restarts: their starts, instead of those above; of "apgd-t" for each class.
        alone: run each attack on all samples that are right, including samples that are already falsified.
        proved: the positions of certified samples, which no attack can falsify; they are not attacked.
        seed: the seed of each attack.
        batch_size: the number of samples per batch.
        replay: another implementation of the network, [B, *shape] to [B, K]. It must also misclassify a point.
        on_batch: called after each batch with the attack and the number of its samples that withstood so far.

    Raises:
        UnsupportedLayerError: a layer has no op; the message says which layer and what to register.
        ValueError: an attack is unknown, does not support this norm, or needs a missing package; or an eps, input,
            label or number is invalid.
    """
    if not 0 <= seed < 2**31 or batch_size < 1:
        raise ValueError(f"seed must be in [0, 2^31) and batch_size >= 1, got {seed} and {batch_size}")
    target = _Target.of(model, x, y, threat_or_linf(threat, eps), replay)
    if (steps is not None and steps < 1) or (restarts is not None and restarts < 1):
        raise ValueError(f"steps and restarts must be >= 1 or None, got {steps} and {restarts}")
    fixed = [name for name in attacks if name not in DEFAULT]
    if fixed and (steps, restarts) != (None, None):
        raise ValueError(f"steps and restarts are for {', '.join(DEFAULT)}, not for {', '.join(fixed)}: leave it out")
    plan = _plan(tuple(attacks), target, batch_size, seed, steps, restarts)
    predictions = [said for places in _batches(range(len(x)), batch_size) for said in target.predictions(places)]
    labels = [int(label) for label in y]
    right = [place for place, label in enumerate(labels) if predictions[place] == label]
    sure = frozenset(proved)
    if not sure <= set(range(len(x))):
        raise ValueError(f"proved names sample {max(sure - set(range(len(x))))} of {len(x)}: give positions in x")
    right = [place for place in right if place not in sure]
    standing, rounds = right, []
    for name, searches in plan.items():
        start = time.perf_counter()
        tried = right if alone else standing
        robust, generator = set(tried), torch.Generator(target.device).manual_seed(seed)
        for search in searches:
            for places in _batches(sorted(robust), batch_size):
                robust -= set(target.falsified(search, places, generator))
                if on_batch is not None:
                    on_batch(name, len(robust))
        standing = [place for place in standing if place in robust]
        falsified = tuple(place for place in tried if place not in robust)
        rounds.append(Round(name, len(tried), falsified, time.perf_counter() - start))
    return Evaluation(tuple(labels), tuple(predictions), tuple(rounds))


@dataclass(frozen=True, eq=False)
class _Target:
    """The attacked network, in its own and in double precision, and labelled samples."""

    network: Precisions
    x: Tensor  # [N, *shape]
    y: Tensor  # [N]
    threat: Threat
    replay: Callable[[Tensor], Tensor] | None

    @classmethod
    def of(
        cls, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, replay: Callable[[Tensor], Tensor] | None
    ) -> _Target:
        threat.check(x)
        check_samples(x, y)
        network = Precisions.of(model, x[:1])
        check_labels(y, network.search.classes)
        return cls(network, x, y, threat, replay)

    @property
    def device(self) -> torch.device:
        return self.network.like.device

    def predictions(self, places: list[int]) -> list[int]:
        """The predicted classes at clean inputs; -1 where the logits are not finite."""
        logits = self.network.proof(self.x[places].to(self.device).double())
        classes: list[int] = torch.where(logits.isfinite().all(1), logits.argmax(1), -1).tolist()
        return classes

    def falsified(self, search: Search, places: list[int], generator: torch.Generator) -> list[int]:
        """The samples among `places` for which a search finds a point that is misclassified in double precision."""
        x, y = self.x[places].to(self.device), self.y[places].to(self.device, torch.long)
        rough = x.to(self.network.like)
        points = search(self.network.search, self.threat.region(rough), rough, y, generator)
        points = self.threat.region(x.double()).project(points.double())
        rows = (violation_at(self.network.proof, y)(points.unsqueeze(0))[0] > 0).nonzero().flatten().tolist()
        return [places[row] for row in rows if self._wrong_there(points[row : row + 1], y[row : row + 1])]

    def _wrong_there(self, point: Tensor, y: Tensor) -> bool:
        """Whether the other implementation, if there is one, also misclassifies a point, [1, *shape]."""
        return self.replay is None or bool(margins(self.replay(point).to(y.device).view(1, -1), y).amin() < 0)


def _batches(places: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield list(places[start : start + size])


def _plan(
    names: tuple[str, ...], target: _Target, batch_size: int, seed: int, steps: int | None, restarts: int | None
) -> dict[str, list[Search]]:
    """The searches of each attack, in order.

    Raises:
        ValueError: an attack is unknown, named twice, does not support these regions, or needs a missing package.
    """
    shape, classes = target.x.shape[1:], target.network.search.classes
    pgd, apgd = PGD(steps=steps or 40, step_size=0.25), APGD(steps=steps or APGD.steps)
    plan = {
        "pgd": (restarts or 3) * [_maximizing(violation_at, pgd)],
        "apgd-ce": (restarts or 5) * [_maximizing(cross_entropy_at, apgd)],
        "apgd-dlr": (restarts or 5) * [_maximizing(dlr_at, apgd)],
        "apgd-t": (restarts or 1) * [_targeted(apgd, rank) for rank in range(min(TARGETS, classes - 1))],
        "line-search": [_maximizing(violation_at, LineSearch())],
    }
    others = {name: kind for name, kind in members(Attack).items() if name not in (*plan, *VERSIONS)}
    choices = (*plan, *VERSIONS, *others)
    if not names or len(set(names)) < len(names) or not set(names) <= set(choices):
        raise ValueError(f"attacks are {', '.join(names) or 'none'}: name some of {', '.join(choices)}, each once")
    if "line-search" in names:
        segments(target.threat.region(target.x))
    chosen: dict[str, list[Search]] = {}
    for name in names:
        if name in VERSIONS:
            whole = AutoAttack(version=VERSIONS[name], batch_size=batch_size, seed=seed)
            whole.require(target.threat)
            parts = whole.parts(shape, classes, target.threat.name)
            chosen |= {f"{name}/{part}": [_part(whole, part, target.threat)] for part in parts}
        elif name in others:
            chosen[name] = [_maximizing(violation_at, _by_default(others[name]))]
        else:
            chosen[name] = plan[name]
    return chosen


def _by_default(kind: type[Attack]) -> Attack:
    missing = required_fields(kind)
    if missing:
        raise ValueError(f"the attack {kind.name!r} has no default for {', '.join(missing)}: call it from Python")
    return kind()


def _maximizing(objective: Callable[[Graph, Tensor], Objective], attack: Attack) -> Search:
    def search(net: Graph, region: Region, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return attack(objective(net, y), region, x, generator)

    return search


def _targeted(apgd: APGD, rank: int) -> Search:
    """Auto-PGD toward the wrong class with the largest logit at the clean input (rank 0), the second largest, etc."""

    def search(net: Graph, region: Region, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        others = net(x).scatter(1, y.unsqueeze(1), -math.inf)
        target = others.topk(rank + 1, dim=1).indices[:, -1]
        objective = targeted_dlr_at if net.classes >= 4 else targeted_margin_at
        return apgd(objective(net, y, target), region, x, generator)

    return search


def _part(whole: AutoAttack, part: str, threat: Threat) -> Search:
    alone = replace(whole, only=part)

    def search(net: Graph, region: Region, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return alone(net, x, y, threat)

    return search
