"""What verdicts at some radii say about others."""

import itertools

import pytest

from ctbench.members import members
from ctbench.regions import Linf, RandomSegments, Threat
from ctbench.results import SampleRecord, Verdict
from ctbench.results.implications import NESTED, ContradictionError, by_halves, implied, relation

RADII = (0.1, 0.2, 0.3)


def record(verdict: Verdict, *, seconds: float = 2.0, **changes) -> SampleRecord:
    right = verdict is not Verdict.MISCLASSIFIED
    bounds = {Verdict.CERTIFIED: 0.5, Verdict.FALSIFIED: -0.5}
    fields = {"index": 7, "label": 3, "prediction": 3 if right else 4, "stage": "crown" if right else "clean"}
    fields |= {"verdict": verdict, "bound": bounds.get(verdict), "seconds": seconds}
    return SampleRecord(**fields | {"stage_seconds": {"crown": seconds}, "attempt": 1} | changes)


def at(verdicts: dict[float, Verdict]) -> dict[float, dict[int, SampleRecord]]:
    return {eps: {7: record(verdict)} for eps, verdict in verdicts.items()}


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(RADII, 2)))
def test_only_what_nested_regions_imply_is_implied(verdict, source, target):
    implications = implied(target, at({source: verdict}))
    follows = {
        Verdict.CERTIFIED: target < source,
        Verdict.FALSIFIED: target > source,
        Verdict.MISCLASSIFIED: True,
        Verdict.UNKNOWN: False,
    }
    assert (7 in implications) is follows[verdict]
    if implications:
        one = implications[7]
        assert (one.verdict, one.decided_at, one.decided_seconds) == (verdict, source, 2.0)
        assert (one.seconds, one.stage_seconds, one.attempt) == (0.0, {}, 0)
        assert one.bound == (0.5 if verdict is Verdict.CERTIFIED else None)
        assert SampleRecord.from_json(one.to_json()) == one


def test_the_first_radius_that_decided_stays_named_along_a_chain():
    middle = implied(0.2, at({0.3: Verdict.CERTIFIED}))
    least = implied(0.1, {0.2: middle})[7]
    assert (least.decided_at, least.decided_seconds) == (0.3, 2.0)


@pytest.mark.parametrize(
    "verdicts",
    [
        {0.3: Verdict.CERTIFIED, 0.1: Verdict.FALSIFIED},
        {0.1: Verdict.CERTIFIED, 0.3: Verdict.MISCLASSIFIED},
        {0.1: Verdict.MISCLASSIFIED, 0.3: Verdict.CERTIFIED},
    ],
    ids=str,
)
def test_contradictions_are_errors(verdicts):
    with pytest.raises(ContradictionError, match=r"sample 7 is certified at eps .*one of the two is wrong"):
        implied(0.2, at(verdicts))


def test_verdicts_that_agree_are_none():
    assert implied(0.2, at({0.1: Verdict.CERTIFIED, 0.3: Verdict.FALSIFIED})) == {}


@pytest.mark.parametrize("number", range(1, 20))
def test_halves_take_each_radius_once_and_few_for_a_sample(number):
    radii = [float(place) for place in range(number)]
    order = by_halves(radii)
    assert sorted(order) == radii
    for boundary in range(number + 1):  # certified below, falsified from there on
        known, tried = dict[float, bool](), 0
        for radius in order:
            if not any((one > radius and ok) or (one < radius and not ok) for one, ok in known.items()):
                known[radius], tried = radius < boundary, tried + 1
        assert tried <= number.bit_length()


@pytest.mark.parametrize(
    "changes",
    [{"decided_at": -0.1}, {"decided_at": float("nan")}, {"decided_at": "0.1"}, {"decided_seconds": None}],
    ids=str,
)
def test_a_record_with_a_wrong_radius_is_refused(changes):
    content = implied(0.1, at({0.2: Verdict.CERTIFIED}))[7].to_json()
    with pytest.raises(ValueError, match=r"decided_at|decided_seconds"):
        SampleRecord.from_json(content | changes)


def test_an_unknown_sample_was_decided_nowhere():
    content = record(Verdict.UNKNOWN, bound=None).to_json()
    with pytest.raises(ValueError, match=r"decided_at is 0\.2, but unknown needs null"):
        SampleRecord.from_json(content | {"decided_at": 0.2, "decided_seconds": 1.0})


def settings(threat):
    """What a certification writes of a threat model."""
    same = {"network_digest": "n", "precision": "torch.float32", "rounding": "outward", "replayed": False}
    return {**same, "norm": threat.name, "eps": threat.eps, "threat": repr(threat)}


def test_settings_tell_nested_regions_as_threat_models_do():
    nested = {name for name, kind in members(Threat).items() if vars(kind).get("nested")}
    assert {members(Threat)[name].__name__ for name in nested} == {*NESTED}
    for name in nested:
        small, large = (members(Threat)[name](eps) for eps in (0.1, 0.25))
        assert small.is_inside(large)
        assert relation(settings(small)) == relation(settings(large)) is not None
    assert relation(settings(RandomSegments(0.1, count=2))) is None


@pytest.mark.parametrize("name", ["network_digest", "precision", "rounding", "replayed"])
def test_settings_that_differ_or_lack_are_not_related(name):
    here = settings(Linf(0.1))
    assert relation({**here, name: "other"}) not in (None, relation(here))
    assert relation({key: value for key, value in here.items() if key != name}) is None


def test_another_data_range_or_a_radius_for_each_feature_is_not_related():
    assert relation(settings(Linf(0.1, clip=None))) != relation(settings(Linf(0.1)))
    assert relation({**settings(Linf(0.1)), "eps": [0.1, 0.2]}) is None
    assert relation({**settings(Linf(0.1)), "eps": 0.15}) is None
