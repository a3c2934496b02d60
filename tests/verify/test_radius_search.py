"""The search for the radii of samples: against robust radii that are known, interrupted, and on what it must refuse."""

import math

import pytest
import torch
from tests.small import inputs, linear, small

from ctbench.engine import Here, Local
from ctbench.regions import L2, FirstCoordinate, Linf
from ctbench.results import Verdict, jsonl
from ctbench.results.radii import RadiusFiles
from ctbench.verify import DEFAULT_STAGES, Bound, Falsify, Records, certify, radii
from ctbench.verify.cascade import Cascade
from ctbench.verify.job import Job, Samples
from ctbench.verify.radius_search import Bracket, Search, search_chunk

PLANE = linear([[1.0, 1.0], [0.0, 0.0]], [-1.0, 0.0])  # z_0 - z_1 = x_0 + x_1 - 1
POINTS = torch.tensor([[0.7, 0.5], [0.8, 0.8], [0.55, 0.5], [0.2, 0.1]])
LABELS = torch.tensor([0, 0, 0, 0])  # the last one is misclassified


def test_the_radii_of_a_plane_are_known():
    """The margin at radius r is x_0 + x_1 - 1 - 2 r in linf, and x_0 + x_1 - 1 - sqrt(2) r in l2."""
    for threat, factor in ((Linf(0.4), 2.0), (L2(0.5), math.sqrt(2))):
        found = radii(PLANE, POINTS, LABELS, threat, tolerance=0.01)
        for sample, point in zip(list(found)[:3], POINTS.double(), strict=False):
            true = (point.sum().item() - 1) / factor
            assert true - 0.011 <= sample.certified <= true
            assert true <= sample.falsified <= true + 0.011
            assert sample.trials <= 8
        wrong = found.samples[3]
        assert (wrong.certified, wrong.falsified, wrong.right, wrong.trials) == (None, 0.0, False, 1)
        assert found.certified_accuracy(0) == found.adversarial_accuracy(0) == 0.75
        assert found.certified_accuracy(0.05) == 0.5
        assert found.adversarial_accuracy(0.05) == 0.5


def test_radii_beyond_the_largest_are_left_open():
    near = radii(PLANE, POINTS[:2], LABELS[:2], Linf(0.05), tolerance=0.01)
    assert [(sample.certified, sample.falsified) for sample in near] == [(0.05, None)] * 2


@pytest.fixture
def problem():
    model = small(0)
    return model, *inputs(model, 12)


def test_each_radius_is_what_a_certification_says(problem):
    found = radii(*problem, Linf(0.4), tolerance=0.05)
    for sample in found:
        for eps, verdict in ((sample.certified, Verdict.CERTIFIED), (sample.falsified, Verdict.FALSIFIED)):
            if eps:
                one = slice(sample.index, sample.index + 1)
                assert certify(problem[0], problem[1][one], problem[2][one], eps=eps)[0].verdict is verdict
    gaps = [sample.falsified - sample.certified for sample in found if sample.right and sample.falsified is not None]
    assert gaps
    assert max(gaps) <= 0.05 + 1e-9


def test_incomplete_stages_leave_a_gap_that_is_searched_from_both_sides(problem):
    found = radii(*problem, Linf(0.4), tolerance=0.02, stages=[Bound(domain="interval"), Falsify()])
    wide = [
        sample for sample in found if sample.right and sample.falsified and sample.falsified - sample.certified > 0.04
    ]
    assert wide
    complete = radii(*problem, Linf(0.4), tolerance=0.02)
    for sample, better in zip(found, complete, strict=True):
        assert (sample.certified or 0) <= (better.certified or 0)
        if sample.falsified and better.falsified:
            assert sample.falsified >= better.falsified


def test_a_search_goes_on_from_its_file(problem, tmp_path):
    files = RadiusFiles(tmp_path / "linf.jsonl")
    whole = radii(*problem, Linf(0.4), tolerance=0.05, records=Records(files.records))
    assert files.read() == whole
    lines = files.records.read_bytes().splitlines(keepends=True)
    files.records.write_bytes(b"".join(lines[:9]) + lines[9][:20])
    made = []
    records = Records(files.records, resume=True, on_record=made.append)
    again = radii(*problem, Linf(0.4), tolerance=0.05, records=records)
    assert [(s.certified, s.falsified) for s in again] == [(s.certified, s.falsified) for s in whole]
    assert len(made) == len(lines) - 9
    assert len(jsonl.read(files.records)) == len(lines)
    with pytest.raises(ValueError, match="exists already"):
        radii(*problem, Linf(0.4), tolerance=0.05, records=Records(files.records))
    with pytest.raises(ValueError, match="was made under other settings"):
        radii(*problem, Linf(0.4), tolerance=0.1, records=records)
    moved = (problem[0], problem[1] / 2, problem[2])
    with pytest.raises(ValueError, match="is about another input"):
        radii(*moved, Linf(0.4), tolerance=0.05, records=records)


def test_an_edited_trial_is_refused(problem, tmp_path):
    files = RadiusFiles(tmp_path / "linf.jsonl")
    radii(*problem, Linf(0.4), tolerance=0.2, records=Records(files.records))
    content = jsonl.read(files.records)
    jsonl.rewrite(files.records, [content[0] | {"eps": 0.4}, *content[1:]])
    with pytest.raises(ValueError, match=r"line 1: .*it was edited"):
        files.read()


def test_the_time_of_the_job_ends_the_search(problem, tmp_path):
    found = radii(*problem, Linf(0.4), total=1e-6, records=Records(tmp_path / "linf.jsonl"))
    assert len(found) == 0
    assert jsonl.read(tmp_path / "linf.jsonl") == []


def brackets(found) -> list[tuple[int, float | None, float | None]]:
    return [(sample.index, sample.certified, sample.falsified) for sample in found]


@pytest.mark.parametrize("place", [Here(), Local(workers=1), Local(workers=2)], ids=str)
def test_the_radii_are_the_same_wherever_samples_are_searched(tmp_path, place):
    """Counterexamples of a plane do not depend on chance; the file holds each trial once."""
    files, told = RadiusFiles(tmp_path / "linf.jsonl"), []
    stages = [Bound(domain="interval"), Bound(domain="crown"), Falsify()]
    alone = radii(PLANE, POINTS, LABELS, Linf(0.4), tolerance=0.01, stages=stages)
    records = Records(files.records, on_record=told.append)
    found = radii(PLANE, POINTS, LABELS, Linf(0.4), tolerance=0.01, stages=stages, records=records, engine=place)
    assert brackets(found) == brackets(alone)
    assert files.read() == found
    trials = [(trial.eps, trial.record.index) for trial in files.trials()]
    assert len(trials) == len(set(trials)) == len(told) == sum(sample.trials for sample in alone)


def test_a_task_that_begins_again_makes_only_the_missing_trials(problem):
    job = Job.of(*problem, threat=Linf(0.4), cascade=Cascade(stages=DEFAULT_STAGES, timeout=60.0), seed=0)
    samples = Samples(range(12), *problem[1:])
    whole = [trial for part in search_chunk(job, samples, 8, [], math.inf) for trial in part]
    rest = [trial for part in search_chunk(job, samples, 8, whole[:20], math.inf) for trial in part]
    assert sorted((t.eps, t.record.index) for t in whole[:20] + rest) == sorted((t.eps, t.record.index) for t in whole)
    search = Search(job, samples, 8)
    assert search.learn(whole) == whole
    assert search.learn(whole[3:5]) == []
    assert list(search.missing()) == []
    assert list(search_chunk(job, samples, 8, [], 0.0)) == []


@pytest.mark.parametrize(
    ("threat", "more", "message"),
    [
        (FirstCoordinate(0.1), {}, "give one whose regions are nested"),
        (Linf([0.1, 0.2, 0.1, 0.1]), {}, "give one whose regions are nested"),
        (None, {}, "give one whose regions are nested"),
        (Linf(0.0), {}, "the largest radius is 0.0: give a radius > 0"),
        (Linf(0.1), {"tolerance": 0.2}, "tolerance is 0.2: give a number > 0 and at most the largest radius, 0.1"),
        (Linf(0.1), {"tolerance": math.nan}, "tolerance is nan"),
        (Linf(0.1), {"total": -1}, "total is -1"),
        (Linf(0.1), {"workers": 0}, "workers is 0: give a whole number of processes"),
    ],
)
def test_what_cannot_be_searched_is_refused(problem, threat, more, message):
    with pytest.raises(ValueError, match=message):
        radii(*problem, threat, **more)


@pytest.mark.parametrize("number", [1, 2, 7, 64])
def test_a_bisection_finds_both_radii_with_few_trials(number):
    """For each pair of a largest certified and a smallest falsified radius."""
    for certified in range(number + 1):
        for falsified in range(certified + 1, number + 2):
            bracket, trials = Bracket(number + 1), 0
            while (radius := bracket.next()) is not None:
                proved, refuted = radius <= certified, radius >= falsified
                verdict = Verdict.CERTIFIED if proved else Verdict.FALSIFIED if refuted else Verdict.UNKNOWN
                bracket.learn(radius, verdict)
                trials += 1
            assert (bracket.certified, bracket.falsified) == (certified, falsified)
            assert trials <= 2 * number.bit_length()
