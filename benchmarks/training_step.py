"""An optimisation step of every training method, compared with a plain torch step, its floor, and the public code.

A plain step is a forward and a backward pass of the module, and Adam. The floor of a method is the time of the passes
in its formula. Each clean pass is a plain step: the statistics of batch norms carry gradients, so it also goes
backward, whatever the loss. With B images, K classes, and S steps and R restarts of an attack, the other passes go
through a frozen network:

    attack      S passes of R B rows with the gradient of the points alone, and one pass without gradients
    point       one pass of B rows with the gradient of the weights
    intervals   two such passes: the centers with W, the radii with |W|
    form        one such pass: CROWN's backward pass with W^T; (K - 1) B rows if every margin is a form
    TAPS        only through the classifier: an attack of (K - 1) R B rows, and one pass of (K - 1) B rows with all
                gradients

A step is timed in turns with the plain step and with each kind of its passes, at their numbers of rows. So nothing is
assumed about the cost of a gradient or the share of the classifier. A ratio is the median of the ratios within rounds,
because the machine may be faster in one round than in the next. The floor leaves out elementwise work between passes
(|W|, lines, projections, clipping). In passes batch norms are separate layers; steps fold them into the convolutions.

The multiples of the public code are relative to its own standard step: CTBench's training loop, commit 0f18162, process
time on 2 cores with 2 threads, cnn7 at batch 16, with torch's default Adam. They are shown next to multiples of a plain
step with the default Adam; the gain of the fused Adam shows in every row. Attacks, splits and batches are the same
here.

CPU time and memory are measured in a process of its own. Memory is the peak of two steps minus the memory before them:
it includes gradients and Adam's state, but not the weights.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._memory import peak
from benchmarks._timing import turns
from ctbench import attacks
from ctbench.datasets import MNIST, Data, Images
from ctbench.domains import interval
from ctbench.graph import Graph, freeze, place_of_cut, split, trace
from ctbench.memory import keep_freed_memory
from ctbench.methods import Method
from ctbench.methods.arow import ARoW
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import CCIBP, MTLIBP, ExpIBP
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.standard import Standard
from ctbench.methods.taps import TAPS
from ctbench.networks import CNN3, CNN7, Architecture
from ctbench.regions import Linf, Threat
from ctbench.results import RunFolder
from ctbench.training import Adam, Recipe
from ctbench.training.blueprint import Blueprint
from ctbench.training.trainer import Trainer

THREAT, CLASSES = Linf(eps=0.3), 10
LOGIT_RADIUS = 5.0
LR = 1e-14  # the last weights of cnn7 are about 1e-9: at 1e-8 its logits were 15 times as wide after three steps
ALONE = 3  # rounds of a process of its own
PLAIN, DEFAULT = "plain torch", "plain, default Adam"


class Pass(NamedTuple):
    """Rows that go through a frozen network, or through the classifier of TAPS, and the gradients that come back."""

    batches: int = 1
    points: bool = False  # whether the gradient of the points is computed
    weights: bool = True
    classifier: bool = False


Work = Counter[Pass]


def search(attack: attacks.PGD, batches: int = 1, *, classifier: bool = False) -> Work:
    """The passes of an attack on this number of batches; the points after its last step are also compared."""
    last = Pass(attack.restarts * batches, weights=False, classifier=classifier)
    return Work({last._replace(points=True): attack.steps, last: 1})


MANY, ONE = attacks.PGD(steps=5, restarts=3), attacks.PGD(steps=1, restarts=3)
ATTACK, POINT = search(MANY), Work([Pass()])
INTERVALS = POINT + POINT
FORM, FORMS = Work([Pass()]), Work([Pass(CLASSES - 1)])  # W^T, and gradients of the form and of W: products as forward
LATENT = search(MANY, CLASSES - 1, classifier=True) + Work([Pass(CLASSES - 1, points=True, classifier=True)])


@dataclass(frozen=True)
class Entry:
    """A method and the passes of its formula."""

    method: Method
    work: Work = field(default_factory=Work)
    steps: int = 1  # of the optimiser, each after a clean pass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A network with its batch, the split of TAPS, and the public code's multiples of its standard step."""

    network: Architecture
    batch: int
    rounds: int
    classifier_relus: int
    public: dict[str, float]

    @property
    def entries(self) -> dict[str, Entry]:
        taps = TAPS(classifier_relus=self.classifier_relus, attack=MANY)
        return {
            "standard": Entry(Standard()),
            "ibp": Entry(IBP(), INTERVALS),
            "crown-ibp, fused": Entry(CrownIBP(), INTERVALS + FORM),
            "crown-ibp, unfused": Entry(CrownIBP(fused=False), INTERVALS + FORMS),
            "pgd": Entry(PGD(attack=MANY), ATTACK + POINT),
            "edac": Entry(EDAC(attack=MANY), ATTACK + POINT + ATTACK + POINT, steps=2),
            "mart": Entry(MART(attack=MANY), ATTACK + POINT),
            "arow": Entry(ARoW(attack=MANY), ATTACK + POINT),
            "sabr": Entry(SABR(attack=MANY), ATTACK + INTERVALS),
            "taps": Entry(taps, INTERVALS + LATENT),
            "staps": Entry(SABR(attack=MANY, inner=taps), ATTACK + INTERVALS + LATENT),
            "mtl-ibp": Entry(MTLIBP(attack=ONE), INTERVALS + search(ONE) + POINT),
            "cc-ibp": Entry(CCIBP(attack=ONE), INTERVALS + search(ONE) + POINT),
            "exp-ibp": Entry(ExpIBP(attack=ONE), INTERVALS + search(ONE) + POINT),
        }

    def data(self) -> Data:
        """One batch of noise in the shape of MNIST."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.batch, 1, 28, 28, generator=generator)
        images = Images(x, torch.randint(0, CLASSES, (self.batch,), generator=generator))
        return Data(train=images, test=images, class_names=tuple("0123456789"), mean=(0.1307,), std=(0.3081,))

    def model(self, data: Data) -> nn.Module:
        return Blueprint.of(self.network, data).build(initialization="shi").train()


CNN7_AT_32 = Setting(
    network=CNN7(),
    batch=32,
    rounds=7,
    classifier_relus=2,  # the last convolution's and the dense layer's
    public={},
)
SETTINGS = {
    "cnn7": CNN7_AT_32,
    "cnn7 at batch 16": replace(
        CNN7_AT_32,
        batch=16,
        public={
            "standard": 1,
            "ibp": 2.2,
            "crown-ibp, fused": 3.7,
            "crown-ibp, unfused": 12.8,
            "pgd": 6.0,
            "edac": 12.1,
            "sabr": 6.7,
            "taps": 16.2,
            "staps": 12.5,
            "mtl-ibp": 4.2,
        },
    ),
    "cnn3": Setting(
        network=CNN3(),
        batch=128,
        rounds=11,
        classifier_relus=1,
        public={
            "standard": 1,
            "ibp": 3.2,
            "crown-ibp, fused": 7.5,
            "pgd": 10.7,
            "edac": 22,
            "sabr": 11.5,
            "taps": 50,
            "staps": 58,
            "mtl-ibp": 7.3,
        },
    ),
}


def main() -> None:
    for name, setting in SETTINGS.items():
        print(
            f"\ntraining step, {name} with batch norm, MNIST shape, batch {setting.batch}, eps {THREAT.eps}; attacks: "
            f"{MANY.restarts} restarts of {MANY.steps} steps, {ONE.steps} for mtl-ibp, cc-ibp and exp-ibp"
        )
        print(
            f"{'':20}{'ms':>7}{'x plain':>9}{'floor':>7}{'x floor':>9}{'x default':>11}{'public':>8}"
            f"{'CPU ms':>8}{'MiB':>8}"
        )
        taken = [second for method in (PLAIN, DEFAULT, *setting.entries) for second in _print_method(name, method)]
        _print_passes(setting, taken)


def _print_method(name: str, method: str) -> list[dict[str, float]]:
    """A row of the table, of medians over the rounds; returns the seconds in each round."""
    setting = SETTINGS[name]
    entry = setting.entries.get(method, Entry(Standard()))
    taken = _turns(setting, method, entry)

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(of(seconds) for seconds in taken)

    print(
        f"{method:20}{1000 * median(lambda t: t[method]):7.0f}{median(lambda t: t[method] / t[PLAIN]):9.2f}"
        f"{median(lambda t: _floor(entry, t) / t[PLAIN]):7.2f}{median(lambda t: t[method] / _floor(entry, t)):9.2f}"
        f"{median(lambda t: t[method] / t[DEFAULT]):11.2f}{setting.public.get(method, '-'):>8}"
        + "".join(f"{value:8.0f}" for value in _alone(name, method)),
        flush=True,
    )
    return taken


def _print_passes(setting: Setting, taken: list[dict[str, float]]) -> None:
    print(f"{'passes: rows':>14}{'through':>12}{'gradients of':>20}{'ms':>7}{'x plain':>9}")
    for work in sorted({work for entry in setting.entries.values() for work in entry.work}):
        rounds = [seconds for seconds in taken if str(work) in seconds]
        through = "classifier" if work.classifier else "network"
        gradients = " and ".join(["points"] * work.points + ["weights"] * work.weights) or "nothing"
        print(
            f"{work.batches * setting.batch:14}{through:>12}{gradients:>20}"
            f"{1000 * statistics.median(seconds[str(work)] for seconds in rounds):7.0f}"
            f"{statistics.median(seconds[str(work)] / seconds[PLAIN] for seconds in rounds):9.2f}"
        )


def _floor(entry: Entry, seconds: dict[str, float]) -> float:
    """The seconds of the passes in a method's formula."""
    return entry.steps * seconds[PLAIN] + sum(count * seconds[str(work)] for work, count in entry.work.items())


def _turns(setting: Setting, method: str, entry: Entry) -> list[dict[str, float]]:
    """The seconds in each round: of a method's step, of the plain steps, and of each kind of pass of the method."""
    data = setting.data()
    model = setting.model(data)
    narrow_logits(model, data)
    contenders = {name: _step(setting, name, model, data) for name in (PLAIN, DEFAULT, method)}
    net, _ = freeze(trace(model, data.input_shape), data.train[:][0], training=True)
    classifier = split(net, place_of_cut(net, setting.classifier_relus))[1]
    for work in entry.work:
        contenders[str(work)] = passing(work, classifier if work.classifier else net, setting.batch)
    return turns(contenders, rounds=setting.rounds)


def _step(setting: Setting, name: str, model: nn.Module, data: Data) -> Callable[[], object]:
    """A step of a method, or a plain step; the weights barely change, so every step does the same work."""
    if name in (PLAIN, DEFAULT):
        return plain_step(model, data, fused=name == PLAIN)
    recipe = Recipe(
        name="benchmark",
        dataset=MNIST(),
        network=setting.network,
        threat=THREAT,
        method=setting.entries[name].method,
        optimizer=Adam(lr=LR),
        epochs=1,
        batch_size=setting.batch,
    )
    trainer = Trainer(recipe, RunFolder(Path()), model, data, torch.device("cpu"))
    settings = recipe.at(0, 0, trainer.steps)
    x, y = data.train[:]
    generator = torch.Generator().manual_seed(0)
    return lambda: trainer.stepper.step(x, y, settings, generator)


def plain_step(model: nn.Module, data: Data, *, fused: bool) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=fused or None)
    x, y = data.train[:]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def passing(work: Pass, net: Graph, batch: int) -> Callable[[], object]:
    """A pass through a frozen network, whose tensors become leaves, and back to the tensors that need a gradient."""
    points = torch.rand(work.batches * batch, *net.input_shape).requires_grad_(work.points)
    wanted = [points] * work.points

    def leaf(tensor: Tensor) -> Tensor:
        copy = tensor.detach().requires_grad_(work.weights and tensor.requires_grad)
        wanted.extend([copy] * copy.requires_grad)
        return copy

    net = net.map(leaf)

    def run() -> None:
        total = net(points).sum()
        if wanted:
            torch.autograd.grad(total, wanted)

    return run


@torch.no_grad()
def narrow_logits(model: nn.Module, data: Data, threat: Threat = THREAT) -> None:
    """Scale the last layer so that interval logits are about as wide as in a trained network.

    The logits of an untrained network are so wide that the loss saturates. Its gradients are then denormal numbers,
    which are slow to compute with and differ from those in training.
    """
    x, _ = data.train[:]
    net, _ = freeze(trace(model, data.input_shape), x, training=True)
    width = interval.boxes(net, threat.region(x))[-1].radius.mean()
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight *= LOGIT_RADIUS / width


def _alone(name: str, method: str) -> list[float]:
    """The CPU time of a step in milliseconds and its memory in MiB, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training_step", name, method]
    return [float(word) for word in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()]


def _measure_alone(name: str, method: str) -> None:
    keep_freed_memory()
    setting = SETTINGS[name]
    data = setting.data()
    model = setting.model(data)
    before = peak()
    step = _step(setting, method, model, data)
    for _ in range(2):  # Adam makes its state at the end of the first
        step()
    memory = peak() - before
    taken = turns({method: step}, rounds=ALONE, clock=time.process_time)
    print(1000 * statistics.median(each[method] for each in taken), memory)


if __name__ == "__main__":
    _measure_alone(*sys.argv[1:])
