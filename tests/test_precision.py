"""Products of float32 are computed in full precision in bounds, attacks and certification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from tests.small import right, small
from tests.stages import Custom

import ctbench
from ctbench.attacks.evaluation import adversarial_accuracy
from ctbench.methods import Batch, RobustLoss
from ctbench.methods.ibp import IBP
from ctbench.precision import full_float32, products
from ctbench.training import train
from ctbench.verify import Findings, Records, verify_property
from ctbench.vnnlib import robustness

backends = torch.backends
Switches = tuple[object, ...]
NEW = hasattr(backends.cuda.matmul, "fp32_precision")
FULL = {"ieee", "none"}


def new_switches() -> Switches:
    if not NEW:
        return ()
    places = (backends, backends.cudnn, backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul)
    places += (backends.mkldnn.conv, backends.cudnn.rnn, backends.mkldnn.rnn)
    return tuple(place.fp32_precision for place in places)


def old_switches() -> Switches:
    return backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


def switches() -> Switches:
    """All of them; where torch refuses to say the old ones, what it says of that."""
    try:
        return new_switches() + old_switches()
    except RuntimeError as error:
        return (*new_switches(), str(error))


def is_full() -> bool:
    return set(new_switches()) <= FULL and (old_switches() == (False, False, "highest") if not NEW else True)


def by_old_switches() -> None:
    backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")


def by_new_switches() -> None:
    backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = "tf32"


def for_all() -> None:
    backends.fp32_precision = "tf32"


def as_it_comes() -> None:
    """cuDNN takes TF32 by default."""


WAYS = [as_it_comes, by_old_switches, *([by_new_switches, for_all] if NEW else [])]


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def rounded(request: pytest.FixtureRequest) -> Iterator[Switches]:
    """A user who has turned on TF32 in one of the ways, and all switches afterwards."""
    if NEW:
        before = [(place, place.fp32_precision) for place in (backends.cuda.matmul, backends.cudnn.conv)]
        before += [(place, place.fp32_precision) for place in (backends.mkldnn.matmul, backends.cudnn.rnn)]
    old = old_switches()
    try:
        request.param()
        yield switches()
    finally:
        if NEW:
            backends.fp32_precision = "none"
        backends.cudnn.allow_tf32 = old[0]
        torch.set_float32_matmul_precision(old[2])
        for place, value in before if NEW else []:
            place.fp32_precision = value
        assert old_switches() == old


def test_the_users_settings_come_back(rounded):
    with products("float32"):
        assert is_full()
        with products("tf32"):
            assert not is_full()
        assert is_full()
    assert switches() == rounded
    with pytest.raises(ZeroDivisionError), products("float32"):
        raise ZeroDivisionError
    assert switches() == rounded


def test_a_generator_leaves_the_users_settings_between_its_steps(rounded):
    seen, ended = [], []

    @full_float32
    def steps(count: int) -> Iterator[int]:
        try:
            for step in range(count):
                seen.append(is_full())
                yield step
        finally:
            ended.append(count)

    for step in steps(2):
        assert switches() == rounded, step
    assert seen == [True, True]
    generator = steps(5)
    assert next(generator) == 0
    generator.close()
    assert ended == [2, 5]
    assert switches() == rounded


def test_what_certifies_and_attacks_computes_in_full(rounded):
    model, seen = small(0), []
    x, y = right(model, 3)

    def look(problem) -> Findings:
        seen.append(is_full())
        return Findings(bound=problem.x.new_full((len(problem),), -1.0))

    ctbench.certify(
        model, x, y, eps=0.01, stages=[Custom(look=look)], records=Records(on_record=lambda record: seen.append(True))
    )
    verify_property(model, robustness(x[0] - 0.01, x[0] + 0.01, int(y[0]), 3), stages=[Custom(look=look)])

    def replay(points: torch.Tensor) -> torch.Tensor:
        seen.append(is_full())
        return model(points.float())

    adversarial_accuracy(model, x, y, eps=0.5, attacks=("pgd",), replay=replay)
    assert len(seen) >= 6
    assert all(seen)
    assert switches() == rounded


@pytest.mark.parametrize("call", [ctbench.bounds, ctbench.margin_bounds], ids=["bounds", "margin_bounds"])
def test_bounds_are_computed_in_full(rounded, monkeypatch, call: Callable):
    from ctbench.domains import interval

    seen, lower_bounds = [], interval.Interval.lower_bounds

    def look(*args: object, **kwargs: object) -> torch.Tensor:
        seen.append(is_full())
        return lower_bounds(*args, **kwargs)

    monkeypatch.setattr(interval.Interval, "lower_bounds", look)
    labels = {} if call is ctbench.bounds else {"y": torch.zeros(2, dtype=torch.long)}
    call(small(0), torch.rand(2, 4), eps=0.1, domain="interval", **labels)
    assert seen == [True]
    assert switches() == rounded


@dataclass(frozen=True)
class Looking(IBP):
    """IBP that remembers the switches."""

    name = "looking"
    seen = []  # noqa: RUF012

    def __call__(self, net: ctbench.graph.Graph, batch: Batch) -> RobustLoss:
        self.seen.append(is_full())
        return super().__call__(net, batch)


@pytest.mark.parametrize(("precision", "full"), [("float32", True), ("tf32", False), ("bfloat16", True)])
def test_training_computes_as_the_recipe_says(rounded, tiny, tmp_path, precision, full):
    Looking.seen.clear()
    recipe = tiny(method=Looking(), shi=0.0, epochs=1, precision=precision)
    run = train(recipe, out=tmp_path, quiet=True)
    assert set(Looking.seen) == {full}
    assert f'"precision": "{precision}"' in run.folder.versions.read_text()
    assert switches() == rounded


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_algorithms_are_taken_where_they_are_asked_for(tiny, tmp_path, deterministic):
    seen = []

    def look(metrics: dict[str, float], model: torch.nn.Module) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    train(tiny(epochs=1), out=tmp_path, quiet=True, deterministic=deterministic, on_epoch=look)
    assert seen == [deterministic]
    assert not torch.are_deterministic_algorithms_enabled()
