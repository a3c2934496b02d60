"""Counterexamples that attacks miss: no stage certifies a network that has one."""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from tests.planted import DEPTH, KINDS, VIOLATION, WIDTH, Planted, fitted, spiked

from ctbench.attacks import PGD
from ctbench.regions import Linf
from ctbench.results import SampleRecord, Verdict
from ctbench.specification import margins, violation_at
from ctbench.verify import DEFAULT_STAGES, FAST_STAGES, Bound, Stage, certify
from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.input_split import InputSplit
from ctbench.verify.milp import Milp

SPIKES: dict[str, Callable[[], Planted]] = {
    f"{kind}, {2 * side} inputs{', rotated' * rotated}, {seed}": partial(spiked, kind, seed, side=side, rotated=rotated)
    for side, seeds in ((1, 1), (2, 2))
    for seed in range(seeds)
    for rotated in (False, True)
    for kind in KINDS
}
FITS: dict[str, Callable[[], Planted]] = {f"fitted, {seed}": partial(fitted, seed) for seed in range(4)}
MAKE = SPIKES | FITS
PRECISIONS = (torch.float32, torch.float64)
every_network = pytest.mark.parametrize("name", MAKE)
both_precisions = pytest.mark.parametrize("dtype", PRECISIONS)


@cache
def planted(name: str, dtype: torch.dtype = torch.float64) -> Planted:
    return MAKE[name]().to(dtype) if dtype == torch.float64 else planted(name).to(dtype)


def decided(given: Planted, *stages: Stage, timeout: float = 20.0) -> SampleRecord:
    """What some stages say, after checking that their bound is one."""
    found = certify(given.model, given.x, given.y, eps=given.eps, stages=stages, timeout=timeout)
    (record,) = found
    least = margins(given.model(given.point), given.y).amin().item()
    assert record.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED)
    assert record.bound is None or record.bound <= least + 1e-4
    return record


# ---------------------------------------------------------------------------------------------- the networks


@both_precisions
@every_network
def test_the_point_lies_in_the_region_and_is_misclassified(name, dtype):
    given = planted(name, dtype).to(torch.float64)
    assert bool((given.model(given.x).argmax(1) == given.y).all())
    assert bool(((given.point - given.x).abs() < 0.7 * given.eps).all())
    least = margins(given.model(given.point), given.y).amin().item()
    assert least == pytest.approx(-VIOLATION, abs=1e-3) if name in SPIKES else least < -VIOLATION / 4
    assert bool((planted(name, dtype).model(planted(name, dtype).point).argmax(1) != given.y).all())


@pytest.mark.parametrize("name", SPIKES)
def test_without_its_spike_a_network_is_right_and_away_from_the_point_there_is_none(name):
    given = planted(name)
    (record,) = certify(given.base, given.x, given.y, eps=given.eps, stages=[Bound(domain="crown")])
    assert record.verdict is Verdict.CERTIFIED
    points = Linf(eps=given.eps).region(given.x).sample(5000, torch.Generator().manual_seed(0)).flatten(0, 1)
    away = points[(points - given.point).flatten(1).norm(dim=1) > 1.01 * DEPTH * WIDTH * given.eps]
    assert len(away) > 4900
    torch.testing.assert_close(given.model(away), given.base(away), rtol=0, atol=1e-5)


@both_precisions
def test_attacks_miss_the_points(dtype):
    missed = {name: [missed_by_pgd(planted(name, dtype), seed) for seed in range(3)] for name in MAKE}
    assert all(sum(of_seeds) >= 2 for of_seeds in missed.values())
    assert sum(sum(of_seeds) for of_seeds in missed.values()) > 0.9 * 3 * len(MAKE)


def missed_by_pgd(given: Planted, seed: int) -> bool:
    attack, generator = PGD(steps=20, restarts=5), torch.Generator().manual_seed(seed)
    found = attack(violation_at(given.model, given.y), Linf(eps=given.eps).region(given.x), given.x, generator)
    return bool((given.model(found).argmax(1) == given.y).all())


# ---------------------------------------------------------------------------------------------- the stages


@both_precisions
@every_network
def test_no_fast_stage_certifies_it(name, dtype):
    for stage in FAST_STAGES:
        decided(planted(name, dtype), stage)


@both_precisions
@every_network
def test_the_default_cascade_finds_it(name, dtype):
    assert decided(planted(name, dtype), *DEFAULT_STAGES).verdict is Verdict.FALSIFIED


@both_precisions
@every_network
def test_branch_and_bound_does_not_certify_it(name, dtype):
    # with two inputs it has time to close what can be closed
    decided(planted(name, dtype), BranchAndBound(), timeout=0.5 if "2 inputs" in name else 0.1)


@both_precisions
@every_network
def test_splitting_the_input_finds_it(name, dtype):
    assert decided(planted(name, dtype), InputSplit()).verdict is Verdict.FALSIFIED


@both_precisions
@every_network
def test_an_exact_solver_finds_it(name, dtype):
    record = decided(planted(name, dtype), Milp())
    assert record.verdict is Verdict.FALSIFIED
