"""Networks that are sensitive to rounding, samples with known least margins, and the judge of verdicts.

A network is made layer by layer around its first sample. Biases put the kinks of a layer inside the region, or just
outside, however small it is: the sum of large terms is then as small as the radius, or as its rounding. The last
bias is chosen by the exact least margin. The new margin is 2^-4 to 2^-56 of its largest terms, on either side of 0, or
0; or it is a part of the error of double precision, on the side where double precision is not. Half of the other
samples are 2^0 to 2^40 units in the last place away from the first one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from random import Random

import torch
from tests.exact import ExactNetwork, Least, Skip, ball, rationals
from tests.kinds import ours
from torch import Tensor, nn

from ctbench.domains import Zonotope, domains
from ctbench.results import SampleRecord, Verdict
from ctbench.verify import DEFAULT_STAGES, FAST_STAGES, Bound, BranchAndBound, Falsify, InputSplit, Milp, Stage, certify

NODES = 30  # of each search: margins within rounding cannot be decided by more of them
SECONDS = 5.0  # of each sample; what takes longer is unknown
EMBEDDED = 20  # inputs that no weight reads: with one more, input splitting does not apply


def limited(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The same stages, with few sub-problems in searches."""
    return tuple(replace(s, max_subproblems=NODES) if isinstance(s, InputSplit | BranchAndBound) else s for s in stages)


BOUNDS: Mapping[str, tuple[Stage, ...]] = {name: (Bound(domain=name),) for name in sorted(ours(domains()))}
SEARCHES: Mapping[str, tuple[Stage, ...]] = {
    "falsify": (Falsify(),),
    "input-split": limited([InputSplit()]),
    "input-split-zonotope": limited([InputSplit(inner=Zonotope(fold=2))]),
    "branch-and-bound": limited([BranchAndBound(pairs=0)]),
    "pairs": limited([BranchAndBound(pairs=100, root_steps=1)]),
    "milp": (Milp(),),
    "fast": FAST_STAGES,
    "default": limited(DEFAULT_STAGES),
}
STAGES = {**BOUNDS, **SEARCHES}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parts of a network."""

    inputs: int = 1  # that weights read
    idle: int = 0  # and that none reads
    hidden: tuple[int, ...] = (4,)
    rows: str = "normal"  # of the weights; or "equal" in groups, "near" each other in groups, "positive", "ones"
    kinks: str = "inside"  # the region; or "below" it, so that all neurons are active, or "anywhere"
    sizes: float = 0.0  # of layers: 10 to a power between -sizes and sizes
    eps: float = 1e-3
    dtype: torch.dtype = torch.float64
    mean: float = 0.0  # of batch norms, about; 0 for no batch norms
    slope: float = 0.0  # of the activations below 0
    skip: bool = False
    edge: bool = False  # the first sample lies at the edge of the data range


def _power(draw: Random, low: float, high: float) -> float:
    return 10.0 ** draw.uniform(low, high)


def _hidden(draw: Random, layers: tuple[int, int], width: tuple[int, int]) -> tuple[int, ...]:
    return tuple(draw.randint(*width) for _ in range(draw.randint(*layers)))


FAMILIES: dict[str, Callable[[Random], Plan]] = {
    "ordinary": lambda draw: Plan(
        inputs=draw.randint(1, 3), hidden=_hidden(draw, (1, 2), (2, 4)), kinks="anywhere", eps=_power(draw, -3, -0.5)
    ),
    "small regions": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 2), (2, 5)), eps=_power(draw, -12, -1)
    ),
    "large regions": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 2), (2, 5)), eps=draw.choice([0.4, 0.5, 1.0]), edge=True
    ),
    "points": lambda draw: Plan(
        inputs=draw.randint(1, 3), hidden=_hidden(draw, (1, 3), (4, 12)), rows=draw.choice(["normal", "positive"]),
        kinks=draw.choice(["inside", "anywhere"]), eps=0.0, sizes=draw.choice([0.0, 3.0]),
    ),
    "badly scaled": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 3), (2, 4)), kinks=draw.choice(["inside", "anywhere"]),
        sizes=8.0, eps=_power(draw, -9, -0.5),
    ),
    "correlated": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 3), (4, 6)), rows="near", eps=_power(draw, -9, -1)
    ),
    "duplicates": lambda draw: Plan(
        hidden=_hidden(draw, *draw.choice([((2, 5), (8, 20))] * 5 + [((6, 8), (60, 100))])),
        rows=draw.choice(["equal", "ones"]), kinks=draw.choice(["below", "below", "inside"]),
        eps=_power(draw, -12, -3), sizes=draw.choice([0.0, 2.0]),
    ),
    "positive": lambda draw: Plan(
        hidden=_hidden(draw, *draw.choice([((3, 7), (8, 16))] * 5 + [((6, 7), (40, 64))])),
        rows="positive", kinks="below", eps=_power(draw, -12, -3),
    ),
    "wide": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=(draw.randint(60, 150),), rows=draw.choice(["normal", "positive", "near"]),
        kinks="below", eps=_power(draw, -9, -1),
    ),
    "long sums": lambda draw: Plan(
        inputs=draw.randint(300, 2000), hidden=(), rows=draw.choice(["normal", "positive", "ones"]),
        eps=draw.choice([0.0, 1e-9, 1e-3]), dtype=draw.choice([torch.float32, torch.float64]),
    ),
    "single precision": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 3), (2, 4)), rows=draw.choice(["normal", "equal", "near"]),
        kinks=draw.choice(["inside", "anywhere", "below"]), sizes=draw.choice([0.0, 4.0]), eps=_power(draw, -6, -0.5),
        dtype=torch.float32,
    ),
    "batch norms": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 2), (2, 4)), mean=_power(draw, -1, 7),
        eps=_power(draw, -6, -1),
    ),
    "batch norms in single precision": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 2), (2, 4)), mean=_power(draw, -1, 2),
        eps=_power(draw, -4, -1), dtype=torch.float32,
    ),
    "leaky": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=_hidden(draw, (1, 2), (2, 4)), slope=draw.choice([0.01, 0.3, -0.5, 1.5]),
        sizes=draw.choice([0.0, 4.0]), eps=_power(draw, -9, -1),
    ),
    "residual": lambda draw: Plan(
        inputs=draw.randint(1, 2), hidden=(draw.randint(2, 3),), skip=True, sizes=draw.choice([0.0, 4.0]),
        eps=_power(draw, -9, -1),
    ),
    "embedded": lambda draw: Plan(
        idle=EMBEDDED, hidden=_hidden(draw, (1, 2), (3, 5)), sizes=draw.choice([0.0, 7.0]), eps=_power(draw, -6, -1)
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Instances:
    """A network, and samples with known least margins."""

    model: nn.Sequential
    x: Tensor  # [N, n], in the network's precision
    y: Tensor  # [N]
    eps: float
    exact: ExactNetwork = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def region(self, place: int) -> tuple[list[Fraction], list[Fraction]]:
        return ball(rationals(self.x[place]), self.eps)

    @cached_property
    def least(self) -> list[Least]:
        """The least margin of each sample on its region."""
        return [self.exact.least(*self.region(place), int(self.y[place])) for place in range(len(self))]

    def certified(self, stages: Sequence[Stage]) -> Iterator[tuple[SampleRecord, str]]:
        """The record of each sample, and its fault."""
        certification = certify(self.model, self.x, self.y, eps=self.eps, stages=stages, timeout=SECONDS)
        for place, record in enumerate(certification):
            yield record, self.fault(place, record)

    def fault(self, place: int, record: SampleRecord) -> str:
        """The fault of a verdict about a sample; empty if there is no fault."""
        label, clean, least = int(self.y[place]), rationals(self.x[place]), self.least[place]
        match record.verdict:
            case Verdict.CERTIFIED:
                margin = least.margin
                wrong = margin + least.doubt <= 0
                said = f"certified with the bound {record.bound}, but the least margin is {float(margin)}"
            case Verdict.FALSIFIED:
                point = rationals(torch.from_numpy(record.counterexample))
                region = zip(clean, point, *self.region(place), strict=True)
                outside = next((f"{float(v)} at {float(x)}" for x, v, a, b in region if not a <= v <= b), None)
                if outside is not None:
                    return f"falsified by a point that is not in the region: {outside}, eps {self.eps}"
                margin = self.exact.margin(point, label)
                wrong = margin - least.doubt >= 0
                said = f"falsified by a point whose margin is {float(margin)}"
            case Verdict.MISCLASSIFIED:
                margin = self.exact.margin(clean, label)
                wrong = margin - least.doubt >= 0
                said = f"misclassified, but the margin is {float(margin)}"
            case _:
                return ""
        return said if wrong else ""


@torch.no_grad()
def instances(family: str, seed: int, count: int = 8) -> Instances:
    """A network of a family, and this number of samples."""
    draw = Random(f"{family} {seed}")
    plan = FAMILIES[family](draw)
    torch.manual_seed(draw.getrandbits(32))
    x = torch.rand(1, plan.inputs + plan.idle, dtype=torch.float64)
    if plan.edge:
        x = torch.where(x < 0.5, 0.0, 1 - x / 1000)
    x = x.to(plan.dtype)
    model = _network(plan, draw, x.double())
    last = model[-1]
    exact = ExactNetwork.of(model, x.shape[1])
    least = exact.least(*ball(rationals(x), plan.eps), 0)
    terms = float(abs(least.margin) + abs(Fraction(last.bias[0].item())))
    wanted = draw.choice([-1, 0, 1, -1, 1]) * terms * 2.0 ** -draw.uniform(4, 56)
    if draw.random() < 0.5:
        wanted = -draw.uniform(0.05, 0.95) * _error(model, exact, least.point)
    last.bias[0] = float(Fraction(last.bias[0].item()) - least.margin + Fraction(wanted))
    near = _near(draw, x, (count + 1) // 2)
    others = torch.rand(count - len(near), x.shape[1], dtype=plan.dtype)
    right = model(others).argmax(1)
    y = torch.where(torch.rand(len(others)) < 0.2, torch.randint(len(last.bias), (len(others),)), right)
    y = torch.cat([torch.zeros(len(near), dtype=torch.long), y])
    return Instances(model, torch.cat([near, others]), y, plan.eps, ExactNetwork.of(model, x.shape[1]))


def _error(model: nn.Module, exact: ExactNetwork, point: Sequence[Fraction]) -> float:
    """The error by which double precision exceeds the margin near a point."""
    x = torch.tensor([[float(value) for value in point]], dtype=torch.float64)
    outputs = copy.deepcopy(model).double()(x)[0]
    return float(Fraction((outputs[0] - outputs[1:].amax()).item()) - exact.margin(rationals(x), 0))


def _near(draw: Random, x: Tensor, count: int) -> Tensor:
    """A sample, and others a few units in the last place away from it: [count, n]."""
    unit = torch.finfo(x.dtype).eps
    steps = [0.0, *(draw.choice([-1, 1]) * unit * 2.0 ** draw.uniform(0, 40) for _ in range(count - 1))]
    steps = [step if abs(step) < 0.01 else 0.01 for step in steps]
    return torch.cat([(x + step).clamp(0, 1) for step in steps])


def _network(plan: Plan, draw: Random, x: Tensor) -> nn.Sequential:
    """A network whose biases fit to a region around x, [1, n], in double precision."""
    maker = _Maker(plan, draw, x, torch.full_like(x, plan.eps))
    layers: list[nn.Module] = []
    for width in plan.hidden:
        layers += maker.hidden(width)
    if plan.skip:
        layers.append(maker.skip(plan.hidden[-1]))
    layers.append(maker.last(draw.choice([2, 2, 3])))
    return nn.Sequential(*layers).to(plan.dtype).eval()


@dataclass
class _Maker:
    """Layers one after another, and the largest absolute value after them."""

    plan: Plan
    draw: Random
    values: Tensor  # of the first sample, [1, n], in double precision
    reach: Tensor  # how far they may move in its region

    def hidden(self, width: int) -> list[nn.Module]:
        layers: list[nn.Module] = [self.linear(width)]
        if self.plan.mean:
            layers.append(self.norm(width))
        self.values = torch.where(self.values > 0, self.values, self.plan.slope * self.values)
        self.reach = self.reach * max(1.0, abs(self.plan.slope))
        return [*layers, nn.LeakyReLU(self.plan.slope) if self.plan.slope else nn.ReLU()]

    def linear(self, width: int) -> nn.Linear:
        values, reach = self.values, self.reach
        groups = torch.arange(width)
        if self.plan.rows in ("equal", "near"):
            groups = torch.randint(min(width, self.draw.randint(1, 3)), (width,))
        weight = torch.randn(width, values.shape[1], dtype=torch.float64)[groups]
        if self.plan.rows == "near":
            weight *= 1 + 1e-9 * torch.randn_like(weight)
        if self.plan.rows == "positive":
            weight = weight.abs()
        if self.plan.rows == "ones":
            weight = torch.ones_like(weight)
        weight *= _power(self.draw, -self.plan.sizes, self.plan.sizes)
        if self.plan.idle and values.shape[1] > self.plan.idle:
            weight[:, self.plan.inputs :] = 0
        weight = weight.to(self.plan.dtype).double()
        products, self.reach = values @ weight.T, reach @ weight.T.abs()
        layer = nn.Linear(values.shape[1], width).double()
        self._fill(layer, weight, products, groups)
        return layer

    def norm(self, width: int) -> nn.BatchNorm1d:
        layer = nn.BatchNorm1d(width, eps=self.draw.choice([1e-5, 2.0**-16])).double()
        layer.running_mean.copy_(self.plan.mean * torch.randn(width))
        layer.running_var.copy_(
            torch.rand(width) + 0.1 if self.draw.random() < 0.5 else torch.full((width,), 1 - 2.0**-16)
        )
        layer.weight.copy_(torch.randn(width))
        for tensor in (layer.running_mean, layer.running_var, layer.weight):
            tensor.copy_(tensor.to(self.plan.dtype))
        factor = layer.weight / (layer.running_var + layer.eps).sqrt()
        shifted, self.reach = (self.values - layer.running_mean) * factor, self.reach * factor.abs()
        self._fill(layer, layer.weight.clone(), shifted, torch.arange(width))
        return layer

    def skip(self, width: int) -> Skip:
        before, moved = self.values, self.reach
        inner = [*self.hidden(width), self.linear(width)]
        self.values, self.reach = before + self.values, moved + self.reach
        return Skip(*inner)

    def last(self, classes: int) -> nn.Linear:
        """The logits; those of the other classes may be constants, so that no terms cancel in a margin."""
        rows, self.plan = self.plan.rows, replace(self.plan, rows="normal")
        layer = self.linear(classes)
        if rows in ("positive", "ones"):
            layer.weight.abs_()
        if rows in ("positive", "ones") or self.draw.random() < 0.5:
            layer.weight[1:] = 0
        return layer

    def _fill(self, layer: nn.Linear | nn.BatchNorm1d, weight: Tensor, products: Tensor, groups: Tensor) -> None:
        """Set the weights of a layer, and biases that put the kinks at the wanted places."""
        shares = torch.rand_like(products)[:, groups]
        bias = {
            "inside": (2 * shares - 1) * self.reach - products,
            "below": (1.01 + shares) * self.reach - products,
            "anywhere": (2 * shares - 1) * products.abs().mean(),
        }[self.plan.kinks]
        layer.weight.copy_(weight)
        layer.bias.copy_(bias[0].to(self.plan.dtype))
        self.values = products + layer.bias
