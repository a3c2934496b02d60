"""Adversarial accuracy: the share of samples that are right, and that none of the attacks named could turn.

    accuracy = |{i : argmax z(x_i) = y_i, and min over k of z_y(x') - z_k(x') >= 0 at all points x' found for i}| / N

Each attack gets what withstood the former ones, search after search, in the precision of the network. A point counts
where, moved into the exact region, it is misclassified in double precision.

    pgd              PGD of 40 steps on the least margin, from 3 starts
    apgd-ce          Auto-PGD of 100 steps on the cross-entropy, from 5 starts
    apgd-dlr         the same on the difference of logits ratio (DLR)
    apgd-t           the same on the targeted DLR (on the targeted margin for fewer than four classes), from 1 start for
                     each of the 9 best other classes
    line-search      the least margin along segments
    autoattack       the parts of AutoAttack (of the package pyautoattack), each for itself, as autoattack/square
    autoattack-plus  the parts of AA+

Any other `Attack` goes by its name, with its defaults, on the least margin.

    adversarial_accuracy(model, x, y, eps=0.1, attacks=("pgd", "autoattack")).adversarial_accuracy
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
from ctbench.regions.lookup import given_threat
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

# a network, regions, inputs [B, *shape], labels [B] and a source of randomness to points, [B, *shape]
Search = Callable[[Graph, Region, Tensor, Tensor, torch.Generator], Tensor]
VERSIONS: dict[str, Literal["standard", "plus"]] = {"autoattack": "standard", "autoattack-plus": "plus"}
TARGETS = 9  # classes that a targeted attack tries, at most
DEFAULT = ("pgd", "apgd-ce", "apgd-dlr", "apgd-t")


@dataclass(frozen=True)
class Round:
    """What one attack did to the samples that it was run on."""

    attack: str
    tried: int  # samples
    turned: tuple[int, ...]  # their places, ascending
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What attacks did to N samples, one after the other."""

    labels: tuple[int, ...]
    predictions: tuple[int, ...]  # at the clean inputs; -1 where the logits are not finite
    rounds: tuple[Round, ...]

    @property
    def natural_accuracy(self) -> float:
        """The share that is right at the clean input."""
        return self._right / len(self.labels)

    @property
    def adversarial_accuracy(self) -> float:
        """The share that is right, and that no attack turned."""
        return self._without(self.rounds)

    @property
    def accuracies(self) -> dict[str, float]:
        """By attack: the share that is right, and that neither it nor one before it turned."""
        return {done.attack: self._without(self.rounds[:count]) for count, done in enumerate(self.rounds, start=1)}

    @property
    def separate_accuracies(self) -> dict[str, float]:
        """By attack: the share that is right, and that it did not turn; of all samples where each was run alone."""
        return {done.attack: self._without((done,)) for done in self.rounds}

    @property
    def turned_by(self) -> tuple[str | None, ...]:
        """By sample: the first attack that turned it; None where it stood, or was wrong already."""
        first = {place: done.attack for done in reversed(self.rounds) for place in done.turned}
        return tuple(first.get(place) for place in range(len(self.labels)))

    @property
    def seconds(self) -> float:
        return sum(done.seconds for done in self.rounds)

    @property
    def _right(self) -> int:
        return sum(label == said for label, said in zip(self.labels, self.predictions, strict=True))

    def _without(self, rounds: Sequence[Round]) -> float:
        turned = {place for done in rounds for place in done.turned}
        return (self._right - len(turned)) / len(self.labels)


@full_float32
def adversarial_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | None = None,
    norm: str | float = "linf",
    clip: tuple[float, float] | None = (0.0, 1.0),
    threat: Threat | None = None,
    attacks: Sequence[str] = DEFAULT,
    alone: bool = False,
    proved: Collection[int] = (),
    seed: int = 0,
    batch_size: int = 256,
    replay: Callable[[Tensor], Tensor] | None = None,
    watch: Callable[[str, int], None] | None = None,
) -> Evaluation:
    """Attack each sample that the network has right, until an attack turns it.

    The network is taken as at test time, whatever mode it is in. What an attack finds does not depend on the attacks
    beside it, but for the samples that they leave it.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [N, *shape].
        y: labels, [N] integers.
        eps: the radius, in [0, 1] pixel space.
        norm: of the ball: "linf", "l2" or "l1", or another threat model's name (see `ctbench.regions.threat`).
        clip: the range of the data, which the ball does not leave; None for no range.
        threat: a threat model in place of eps, norm and clip.
        attacks: their names, in the order in which they are run; see above.
        alone: run each of them on all samples that are right, also on those that are turned already.
        proved: the places of samples that no attack can turn, as they are certified; they are not attacked.
        seed: of each attack.
        batch_size: samples that are attacked at once.
        replay: another implementation of the network, [B, *shape] to [B, K]. A point must be misclassified there, too.
        watch: called after each batch with the attack and how many of its samples withstood so far.

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: an attack that is unknown, not for this norm, or whose package is missing; an eps, input, label or
            number that cannot be.
    """
    if not 0 <= seed < 2**31 or batch_size < 1:
        raise ValueError(f"seed must be in [0, 2^31) and batch_size >= 1, got {seed} and {batch_size}")
    target = _Target.of(model, x, y, given_threat(threat, eps, norm, clip), replay)
    plan = _plan(tuple(attacks), target, batch_size, seed)
    predictions = [said for places in _batches(range(len(x)), batch_size) for said in target.predictions(places)]
    labels = [int(label) for label in y]
    right = [place for place, label in enumerate(labels) if predictions[place] == label]
    sure = frozenset(proved)
    if not sure <= set(range(len(x))):
        raise ValueError(f"proved names sample {max(sure - set(range(len(x))))} of {len(x)}: give places in x")
    right = [place for place in right if place not in sure]
    standing, rounds = right, []
    for name, searches in plan.items():
        start = time.perf_counter()
        tried = right if alone else standing
        left, generator = set(tried), torch.Generator(target.device).manual_seed(seed)
        for search in searches:
            for places in _batches(sorted(left), batch_size):
                left -= set(target.turned(search, places, generator))
                if watch is not None:
                    watch(name, len(left))
        standing = [place for place in standing if place in left]
        turned = tuple(place for place in tried if place not in left)
        rounds.append(Round(name, len(tried), turned, time.perf_counter() - start))
    return Evaluation(tuple(labels), tuple(predictions), tuple(rounds))


@dataclass(frozen=True, eq=False)
class _Target:
    """What is attacked: a network, in its own and in double precision, and labelled samples."""

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
        check_labels(y, network.net.classes)
        return cls(network, x, y, threat, replay)

    @property
    def device(self) -> torch.device:
        return self.network.like.device

    def predictions(self, places: list[int]) -> list[int]:
        """What the network says at clean inputs; -1 where that is not finite."""
        logits = self.network.exact(self.x[places].to(self.device).double())
        said: list[int] = torch.where(logits.isfinite().all(1), logits.argmax(1), -1).tolist()
        return said

    def turned(self, search: Search, places: list[int], generator: torch.Generator) -> list[int]:
        """Those of some samples for which a search finds a point that is misclassified indeed."""
        x, y = self.x[places].to(self.device), self.y[places].to(self.device, torch.long)
        rough = x.to(self.network.like)
        points = search(self.network.net, self.threat.region(rough), rough, y, generator)
        points = self.threat.region(x.double()).project(points.double())
        found = (violation_at(self.network.exact, y)(points.unsqueeze(0))[0] > 0).nonzero().flatten().tolist()
        return [places[row] for row in found if self._wrong_there(points[row : row + 1], y[row : row + 1])]

    def _wrong_there(self, point: Tensor, y: Tensor) -> bool:
        """Whether the other implementation, if there is one, is wrong about a point, [1, *shape], too."""
        return self.replay is None or bool(margins(self.replay(point).to(y.device).view(1, -1), y).amin() < 0)


def _batches(places: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield list(places[start : start + size])


def _plan(names: tuple[str, ...], target: _Target, batch_size: int, seed: int) -> dict[str, list[Search]]:
    """The searches of each attack, one after the other.

    Raises:
        ValueError: an attack that is unknown, named twice, not for these regions, or whose package is missing.
    """
    shape, classes = target.x.shape[1:], target.network.net.classes
    plan = {
        "pgd": 3 * [_maximizing(violation_at, PGD(steps=40, step_size=0.25))],
        "apgd-ce": 5 * [_maximizing(cross_entropy_at, APGD())],
        "apgd-dlr": 5 * [_maximizing(dlr_at, APGD())],
        "apgd-t": [_targeted(rank) for rank in range(min(TARGETS, classes - 1))],
        "line-search": [_maximizing(violation_at, LineSearch())],
    }
    others = {name: kind for name, kind in members(Attack).items() if name not in (*plan, *VERSIONS)}
    known = (*plan, *VERSIONS, *others)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(f"attacks are {', '.join(names) or 'none'}: name some of {', '.join(known)}, each once")
    if "line-search" in names:
        segments(target.threat.region(target.x))
    chosen: dict[str, list[Search]] = {}
    for name in names:
        if name in VERSIONS:
            whole = AutoAttack(version=VERSIONS[name], batch_size=batch_size, seed=seed)
            whole.require(target.threat.name)
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


def _targeted(rank: int) -> Search:
    """Auto-PGD toward the class that is the best of the others at the clean input, the second best, and so on."""

    def search(net: Graph, region: Region, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        others = net(x).scatter(1, y.unsqueeze(1), -math.inf)
        target = others.topk(rank + 1, dim=1).indices[:, -1]
        objective = targeted_dlr_at if net.classes >= 4 else targeted_margin_at
        return APGD()(objective(net, y, target), region, x, generator)

    return search


def _part(whole: AutoAttack, part: str, threat: Threat) -> Search:
    alone = replace(whole, only=part)

    def search(net: Graph, region: Region, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return alone(net, x, y, eps=threat.eps, norm=threat.name)

    return search
