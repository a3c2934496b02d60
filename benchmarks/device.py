"""The speed of a device: training steps, memory, certification; and what slows a GPU down: launches and waits.

    python -m benchmarks device                                  # counts and times; tiny sizes if there is no GPU
    python -m benchmarks device --minutes 8 --out measured       # on a GPU: the most useful first, until time is up
    python -m benchmarks device --counts --out measured          # only launches and waits, of cnn7, on any machine

Each result is written to OUT/device.json and OUT/device.md as soon as it is measured. A measurement that fails is
reported there, and the command then ends with status 1.

Launches and waits (see `_counting`) are counted for a training step of every method at its full radius, for a batch
through the fast cascade, including the freezing of the network, and for rounds of branch and bound. The floor is the
number of launches of the formula's passes as plain torch (see `training_step`): forward and backward passes of the
frozen network, and the optimiser. The launches above the floor are projections, lines, boxes of elementwise ops and
metrics.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ctbench
from benchmarks._counting import Counter, counted
from benchmarks._settings import Setting, settings, tiny
from benchmarks.training_step import (
    CLASSES,
    FORM,
    FORMS,
    INTERVALS,
    POINT,
    Pass,
    Work,
    passing,
    plain_step,
    search,
)
from ctbench import attacks
from ctbench.cli.options import device as available
from ctbench.graph import freeze, place_of_cut, split, trace
from ctbench.graph.precisions import Precisions
from ctbench.methods import Method
from ctbench.methods.arow import ARoW
from ctbench.methods.coap import COAP
from ctbench.methods.crown_ibp import CrownIBP
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.methods.ibp_r import IBPR
from ctbench.methods.line_search import LineSearchTraining
from ctbench.methods.mart import MART
from ctbench.methods.mtl_ibp import ExpressiveLoss
from ctbench.methods.pgd import PGD
from ctbench.methods.sabr import SABR
from ctbench.methods.sam import SAM
from ctbench.methods.smoothing import WeightSmoothing
from ctbench.methods.standard import Standard
from ctbench.methods.taps import TAPS
from ctbench.networks import CNN3, MLP
from ctbench.recipes import digits
from ctbench.regions import Linf
from ctbench.results.jsonl import write_json
from ctbench.training import Recipe
from ctbench.verify import BranchAndBound, Problem
from ctbench.verify.defaults import FAST_STAGES

Row = dict[str, Any]
ROUNDS, ENOUGH = 10, 3.0  # a call is timed at most this often, and not again after this many seconds
AGAIN = ("ibp", "mtl-ibp", "sabr", "crown-ibp", "pgd", "taps", "standard")  # also timed in other precisions
PRECISIONS = {"cpu": ("bfloat16",), "cuda": ("TF32", "bfloat16")}  # besides float32; a CPU has no TF32


# -------------------------------------------------------------------------------------------- launches and waits


def passes(method: Method) -> tuple[Work, int] | None:
    """The passes of a method's formula besides its plain steps, and the number of plain steps; None if not known."""
    if isinstance(method, SAM | WeightSmoothing):
        inner = passes(method.inner)
        if inner is None:
            return None
        times, clean = (2, 2) if isinstance(method, SAM) else (method.samples + 1, method.samples)
        return _times(inner[0], times) + _times(POINT, clean), inner[1]
    if isinstance(method, SABR):
        inner = passes(method.inner)
        return None if inner is None else (search_of(method) + inner[0], inner[1])
    if isinstance(method, TAPS):
        classifier = Work([Pass(CLASSES - 1, points=True, classifier=True)])
        assert isinstance(method.attack, attacks.PGD)
        return INTERVALS + search(method.attack, CLASSES - 1, classifier=True) + classifier, 1
    if isinstance(method, CrownIBP):
        return INTERVALS + (FORM if method.fused else FORMS), 1
    if isinstance(method, COAP) and method.projections is not None:
        return Work([Pass(method.projections)]) + FORMS, 1
    if isinstance(method, LineSearchTraining) and method.attack is not None:
        grids = 3 + method.attack.refinements  # of three segments, then around the best point
        return Work({Pass(method.attack.points, weights=False): grids}) + POINT, 1
    if isinstance(method, EDAC):
        return _times(search_of(method) + POINT, 2), 2
    if isinstance(method, PGD | MART | ARoW):
        return search_of(method) + POINT, 1
    if isinstance(method, ExpressiveLoss | IBPR):
        return INTERVALS + search_of(method) + POINT, 1
    return {Standard: (Work(), 1), IBP: (INTERVALS, 1)}.get(type(method))


def search_of(method: Any) -> Work:
    """The passes of a method's attack."""
    return search(method.attack)


def _times(work: Work, times: int) -> Work:
    return Work({kind: times * count for kind, count in work.items()})


def floor(setting: Setting, recipe: Recipe) -> int | None:
    """The launches of the formula's passes as plain torch."""
    work = passes(recipe.method)
    if work is None:
        return None
    data = setting.data(2)
    model = setting.model(recipe).train()
    net, _ = freeze(trace(model, data.input_shape), data.train[:][0], training=True)
    total = work[1] * counted(plain_step(model, data, fused=True)).launches
    for kind, count in work[0].items():
        through = net
        if kind.classifier:
            method = recipe.method.inner if isinstance(recipe.method, SABR) else recipe.method
            assert isinstance(method, TAPS)
            through = split(net, place_of_cut(net, method.classifier_relus))[1]
        total += count * counted(passing(kind, through, 2)).launches
    return total


def count_step(setting: Setting, name: str) -> Row:
    """Launches and waits of a step; they do not depend on the size of the batch."""
    recipe = setting.recipes[name]
    step = setting.step(recipe, torch.device("cpu"), 2)
    step()  # the optimiser makes its state
    counter = counted(step)
    return {
        "case": f"step of {name}",
        "launches": counter.launches,
        "waits": counter.waits,
        "floor": floor(setting, recipe),
    }


def count_cascade() -> Row:
    """Launches and waits of a batch that goes through the fast cascade."""
    model, x, y = subject(torch.device("cpu"), 16)
    counter = counted(lambda: ctbench.certify(model, x, y, eps=0.1, stages=FAST_STAGES, timeout=None))
    return {"case": "16 digits through the fast cascade", "launches": counter.launches, "waits": counter.waits}


@dataclass(frozen=True, kw_only=True)
class Rounds(BranchAndBound):
    """Branch and bound that notes the counts before each round."""

    counter: Counter
    before: list[tuple[int, int]]

    def _split(self, *arguments: Any) -> Any:
        self.before.append((self.counter.launches, self.counter.waits))
        return super()._split(*arguments)


def rounds_of_branch_and_bound() -> list[tuple[int, int]]:
    """The launches and waits of each round of branch and bound, from one split of sub-problems to the next."""
    problem = hard_problem(torch.device("cpu"), samples=16)
    with Counter() as counter:
        stage = Rounds(counter=counter, before=[], pairs=0, max_subproblems=500, batch_subproblems=64)
        stage(problem, torch.Generator())
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(stage.before)]


def count_rounds() -> Row:
    """The most launches and waits of a round of branch and bound."""
    rounds = rounds_of_branch_and_bound()
    launches, waits = (max(column) for column in zip(*rounds, strict=True))
    return {"case": f"a round of branch and bound, at most in {len(rounds)}", "launches": launches, "waits": waits}


# -------------------------------------------------------------------------------------------- subjects of verification


def subject(device: torch.device, count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network that was trained for seconds, and test images."""
    recipe = replace(
        digits.digits_pgd(), network=CNN3(width=2), epochs=2, ramp=digits.SmoothRamp(end=1), batch_size=128
    )
    data = recipe.dataset.load()
    with tempfile.TemporaryDirectory() as place:
        model = ctbench.train(recipe, out=Path(place) / "run", quiet=True).model
    x, y = data.test[:count]
    return model.to(device), x.to(device), y.to(device)


def hard_problem(device: torch.device, *, samples: int) -> Problem:
    """Samples of a random network of three layers, at a radius where bounds alone do not decide them."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(hidden=(50, 50)).build((1, 1, 10), 3)
    for parameter in model.parameters():
        parameter.data *= 1.7
    x, model = torch.rand(samples, 1, 1, 10, generator=generator).to(device), model.to(device)
    both = Precisions.of(model, x[:1])
    y, threat = both.search(x).argmax(1), Linf(eps=0.1)
    double = Problem.of_labels(both.proof, x.double(), y, threat)
    return Problem.of_labels(both.search, x, y, threat, double=double)


# -------------------------------------------------------------------------------------------- times


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device) -> tuple[float, float | None]:
    """The median seconds of a call, and its peak memory on the device in MiB; None for the memory on a CPU."""
    memory = None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    run()
    synchronize(device)
    if device.type == "cuda":
        memory = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    taken = list[float]()
    while len(taken) < ROUNDS and sum(taken) < ENOUGH:
        start = time.perf_counter()
        run()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), memory


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 in products of matrices and in convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = on
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def time_step(setting: Setting, name: str, precision: str, device: torch.device) -> Row:
    recipe = setting.recipes[name]
    if precision == "bfloat16":
        recipe = replace(recipe, precision="bfloat16")
    with tf32(precision == "TF32"):
        seconds, memory = timed(setting.step(recipe, device), device)
    return {
        "method": name,
        "precision": precision,
        "ms": 1000 * seconds,
        "images/s": recipe.batch_size / seconds,
        "MiB": memory,
    }


def time_certification(setting: Setting, domain: str, count: int, device: torch.device) -> Row:
    """Margins of an untrained network, whose neurons are mostly unstable, by one domain."""
    recipe = setting.recipes["ibp"]
    model, data = setting.model(recipe).to(device).eval(), setting.data(count)
    x, y = (tensor.to(device) for tensor in data.test[:])
    eps = min(0.01, recipe.threat.eps)

    def run() -> None:
        with torch.no_grad():
            ctbench.margin_bounds(model, x, y, eps=eps, domain=domain)

    with tf32(False):
        seconds, memory = timed(run, device)
    return {"domain": domain, "images": count, "images/s": count / seconds, "MiB": memory}


def time_cascade(count: int, device: torch.device) -> Row:
    model, x, y = subject(device, count)
    with tf32(False):
        seconds, memory = timed(lambda: ctbench.certify(model, x, y, eps=0.1, stages=FAST_STAGES, timeout=None), device)
    return {"domain": "the fast cascade, digits", "images": len(x), "images/s": len(x) / seconds, "MiB": memory}


def time_parts(parts: int, nodes: int, device: torch.device) -> Row:
    """The speed of branch and bound with `parts` sub-problems at once."""
    problem = hard_problem(device, samples=32)
    stage = BranchAndBound(batch_subproblems=parts, max_subproblems=nodes, pairs=0)
    generator = torch.Generator(device)
    with tf32(False):
        seconds, memory = timed(lambda: stage(problem, generator), device)
    return {"sub-problems at once": parts, "seconds": seconds, "MiB": memory}


# -------------------------------------------------------------------------------------------- the run

Job = tuple[str, Callable[[], Row]]


def counts(setting: Setting) -> list[Job]:
    """Everything that is counted."""
    title = f"Launches and waits: {setting.title.rpartition(',')[0]}"
    steps: list[Job] = [(title, partial(count_step, setting, name)) for name in setting.recipes]
    return [*steps, (title, count_cascade), (title, count_rounds)]


def times(places: list[Setting], device: torch.device, *, small: bool) -> list[Job]:
    """Everything that is timed, the most useful first."""
    jobs = list[Job]()
    for setting in places:
        jobs += [
            (f"Training steps: {setting.title}", partial(time_step, setting, name, "float32", device))
            for name in setting.recipes
        ]
    title = f"Certification: {places[0].title.rpartition(',')[0]}"
    for domain, count in (("interval", 10_000), ("crown-ibp", 2_000), ("crown", 32)):
        jobs.append((title, partial(time_certification, places[0], domain, min(count, 16) if small else count, device)))
    jobs.append((title, partial(time_cascade, 16 if small else 300, device)))
    for parts in (16, 64) if small else (64, 256, 1024, 4096):
        jobs.append(("Branch and bound", partial(time_parts, parts, 50 if small else 5000, device)))
    for precision in PRECISIONS.get(device.type, ()):
        for setting in places:
            jobs += [
                (f"Training steps: {setting.title}", partial(time_step, setting, name, precision, device))
                for name in AGAIN
            ]
    return jobs


def run(jobs: list[Job], until: float, about: str, out: Path | None) -> tuple[dict[str, list[Row]], bool]:
    """Do one job after another until the time is over, and write each result at once.

    Returns:
        The rows of each table by its title, and whether a job failed.
    """
    tables, failed, longest, missed = dict[str, list[Row]](), False, 0.0, 0
    for done, (title, job) in enumerate(jobs):
        start = time.monotonic()
        if start + longest > until:  # a job that takes longer than all jobs before may end late
            missed = len(jobs) - done
            break
        try:
            row = job()
        except Exception as error:
            row, failed = {"failed": f"{_named(job)}: {type(error).__name__}: {error}".replace("\n", " ")}, True
        longest = max(longest, time.monotonic() - start)
        tables.setdefault(title, []).append(row)
        print(f"{title}: {', '.join(f'{key} {_shown(value)}' for key, value in row.items())}", flush=True)
        _write(tables, about, out)
    if missed:
        print(f"the time is up: {missed} of {len(jobs)} results were not measured", flush=True)
    return tables, failed


def _named(job: Callable[[], Row]) -> str:
    arguments = job.args if isinstance(job, partial) else ()
    words = (str(argument) for argument in arguments if isinstance(argument, str | int))
    return " ".join([getattr(job, "func", job).__name__, *words])


def _write(tables: dict[str, list[Row]], about: str, out: Path | None) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "device.json", {"about": about, "tables": tables})
        (out / "device.md").write_text(f"{about}\n\n{markdown(tables)}")


def markdown(tables: dict[str, list[Row]]) -> str:
    """The results as Markdown tables."""
    parts = []
    for title, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [columns, ["---"] * len(columns), *([_shown(row.get(key)) for key in columns] for row in rows)]
        parts.append("\n".join([f"### {title}", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def minutes(text: str) -> float:
    """A positive number of minutes."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes > 0, e.g. 8")
    return number


def main(options: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks device")
    parser.add_argument("--minutes", type=minutes, default=1.0, help="the time after which no measurement begins")
    parser.add_argument("--out", type=Path, help="a folder for device.json and device.md")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=available, default=default, help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--counts", action="store_true", help="only count launches and waits, of cnn7")
    chosen = parser.parse_args(options or [])
    device, until = torch.device(chosen.device), time.monotonic() + 60 * chosen.minutes
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    about = f"torch {torch.__version__}, {name}"
    if chosen.counts:
        jobs = counts(settings()[0])
    else:
        places = tiny() if device.type == "cpu" else settings()
        jobs = times(places, device, small=device.type == "cpu") + counts(tiny()[0])
    _, failed = run(jobs, until, about, chosen.out)
    return int(failed)
