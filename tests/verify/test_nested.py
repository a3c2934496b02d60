"""Certification at several radii: what follows is not computed, and the verdicts are those of single certifications."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.small import inputs, small
from tests.stages import Proving

from ctbench.engine import Here, Local
from ctbench.regions import L1, L2, FirstCoordinate, Linf, Threat
from ctbench.results import CertificationFiles, Verdict
from ctbench.results.implications import ContradictionError
from ctbench.training import train
from ctbench.verify import DEFAULT_STAGES, FAST_STAGES, Bound, Falsify, Findings, Records, certify, certify_radii

RADII = (0.01, 0.05, 0.08, 0.12, 0.2, 0.3, 0.4)


@pytest.fixture
def problem():
    model = small(0)
    return model, *inputs(model, 25)


def verdicts(certification) -> list[Verdict]:
    return [record.verdict for record in certification]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.1), L1(0.1)], ids=lambda threat: threat.name)
def test_the_verdicts_are_those_of_single_certifications(problem, threat):
    together = certify_radii(*problem, threat, eps=RADII)
    assert list(together) == list(RADII)
    implied = 0
    for eps, certification in together.items():
        alone = certify(*problem, type(threat)(eps))
        for one, other in zip(certification, alone, strict=True):
            assert one.verdict == other.verdict or Verdict.UNKNOWN in (one.verdict, other.verdict)
        implied += sum(record.decided_at is not None for record in certification)
    assert implied > 25 * len(RADII) / 2
    assert {verdict for each in together.values() for verdict in verdicts(each)} >= {"certified", "falsified"}


def test_accuracies_never_rise_with_the_radius(problem):
    together = certify_radii(*problem, eps=RADII, stages=[Bound(domain="interval"), Bound(domain="crown")])
    shares = [certification.certified_accuracy for certification in together.values()]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_an_open_sample_is_decided_by_a_radius_that_comes_later(problem, tmp_path):
    """A stage that decides only the largest radius: the smaller ones were tried before, and stay not open."""

    def largest_only(problem) -> Findings:
        sure = problem.region.radius.amax() > 0.25
        return Findings(bound=torch.full((len(problem),), 1.0 if sure else -1.0, dtype=problem.x.dtype))

    places = {eps: Records(tmp_path / f"{eps}.jsonl") for eps in (0.1, 0.2, 0.3)}
    together = certify_radii(
        *problem, Linf(0.1, clip=None), eps=places, stages=[Proving(look=largest_only)], records=places
    )
    right = [record.right for record in together[0.3]]
    for eps, certification in together.items():
        assert [record.verdict is Verdict.CERTIFIED for record in certification] == right
        assert CertificationFiles(tmp_path / f"{eps}.jsonl").read() == certification
    tried = [record for record in together[0.2] if record.right]
    assert all((record.decided_at, record.seconds > 0) == (0.3, True) for record in tried)


def test_what_follows_after_a_second_attempt_is_of_this_attempt(problem, tmp_path):
    def proving(eps):
        return lambda problem: Findings(
            bound=problem.x.new_full((len(problem),), 1.0 if problem.region.radius.amax() > eps else -1.0)
        )

    places = {eps: Records(tmp_path / f"{eps}.jsonl", resume=True) for eps in (0.1, 0.2, 0.3)}
    stages = [Proving(look=proving(1.0), called="first"), Proving(look=proving(0.25), called="second")]
    for attempt in (1, 2):
        together = certify_radii(*problem, Linf(0.1, clip=None), eps=places, stages=stages[:attempt], records=places)
    for eps, certification in together.items():
        files = CertificationFiles(tmp_path / f"{eps}.jsonl")
        assert files.read() == certification
        proved = [record for record in certification if record.verdict is Verdict.CERTIFIED]
        assert len(proved) == sum(record.right for record in certification) > 0
        assert {record.attempt for record in proved} == {1}
        assert {record.decided_at for record in proved} == {None if eps == 0.3 else 0.3}


@pytest.mark.parametrize("first", [0, 50])
def test_records_may_stay_in_their_files(problem, tmp_path, first):
    """Verdicts that follow replace open samples in the files as in memory; a second job adds nothing."""

    def places(**more) -> dict[float, Records]:
        return {eps: Records(tmp_path / f"{eps}.jsonl", first=first, in_memory=False, **more) for eps in RADII}

    stages = [Bound(domain="interval"), Falsify()]
    inside = certify_radii(*problem, eps=RADII, stages=stages, records={eps: Records(first=first) for eps in RADII})
    stored = certify_radii(*problem, eps=RADII, stages=stages, records=places())
    for eps in RADII:
        assert verdicts(stored[eps]) == verdicts(inside[eps])
        assert [record.decided_at for record in stored[eps]] == [record.decided_at for record in inside[eps]]
        assert CertificationFiles(tmp_path / f"{eps}.jsonl").read() == stored[eps]
    assert any(record.decided_at is not None for each in stored.values() for record in each)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert certify_radii(*problem, eps=RADII, stages=stages, records=places(resume=True)) == stored
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_all_radii_are_certified_by_the_same_workers(problem, monkeypatch):
    hired = list[str]()
    crews = sys.modules["ctbench.engine.local"]
    start = crews._Processes.hire
    monkeypatch.setattr(crews._Processes, "hire", lambda crew: hired.append("one") or start(crew))
    together = certify_radii(*problem, eps=(0.05, 0.1, 0.2), stages=FAST_STAGES, workers=2)
    assert len(hired) == 2
    assert [len(one) for one in together.values()] == [25] * 3


def test_a_job_goes_on_from_its_files(problem, tmp_path):
    files = {eps: CertificationFiles(tmp_path / f"{eps}.jsonl") for eps in RADII}

    def places(*, resume: bool) -> dict[float, Records]:
        return {eps: Records(each.records, resume=resume, counterexamples=True) for eps, each in files.items()}

    whole = certify_radii(*problem, eps=RADII, records=places(resume=False))
    lines = {eps: each.records.read_text().splitlines(keepends=True) for eps, each in files.items()}
    for eps, each in files.items():  # as after a kill: the files of later radii are shorter
        each.records.write_text("".join(lines[eps][: 5 + int(10 * eps)]))
    again = certify_radii(*problem, eps=RADII, records=places(resume=True))
    for eps in RADII:
        assert verdicts(again[eps]) == verdicts(whole[eps])
        assert files[eps].read() == again[eps]
        for record in again[eps]:
            if record.verdict is Verdict.FALSIFIED:
                point = np.load(files[eps].counterexamples / f"{record.index}.npy")
                assert np.abs(point - problem[1][record.index].numpy()).max() <= eps


def test_files_that_contradict_each_other_are_an_error(problem, tmp_path):
    def only_large(problem) -> Findings:
        """A false proof at the largest radius, and true counterexamples at the others."""
        if problem.region.radius.amax() > 0.35:
            return Findings(bound=torch.ones(len(problem), dtype=problem.x.dtype))
        return DEFAULT_STAGES[2](problem, torch.Generator().manual_seed(0))

    stages = [Proving(look=only_large)]
    places = {eps: Records(tmp_path / f"{eps}.jsonl", resume=True) for eps in (0.3, 0.4)}
    for eps, records in places.items():
        certify(*problem, Linf(eps, clip=None), stages=stages, records=records)
    with pytest.raises(ContradictionError, match=r"is certified at eps 0.4, but falsified at eps 0.3"):
        certify_radii(*problem, Linf(0.1, clip=None), eps=places, stages=stages, records=places)


@dataclass(frozen=True, kw_only=True)
class Shell(Linf):
    """A subclass whose regions may be others: it does not say that they are nested."""

    name: ClassVar[str] = "shell of tests"


def test_regions_that_are_not_known_to_be_nested_are_computed_each(problem):
    together = certify_radii(*problem, Shell(0.1), eps=RADII[:3])
    assert all(record.decided_at is None for certification in together.values() for record in certification)


def test_the_time_of_the_whole_job_ends_all_radii(problem, tmp_path):
    places = {eps: Records(tmp_path / f"{eps}.jsonl") for eps in (0.1, 0.2)}
    together = certify_radii(*problem, eps=places, total=1e-6, records=places)
    assert not any(record.finished for certification in together.values() for record in certification)
    assert all(not CertificationFiles(tmp_path / f"{eps}.jsonl").read().records for eps in places)


def test_workers_certify_all_radii(problem, tmp_path):
    together = {}
    for engine in (Here(), Local(workers=2)):
        places = {eps: Records(tmp_path / f"{engine.size()}-{eps}.jsonl") for eps in (0.05, 0.2)}
        together[engine.size()] = certify_radii(*problem, eps=list(places), records=places, engine=engine)
        for eps, place in places.items():
            assert verdicts(CertificationFiles(place.path).read()) == verdicts(together[engine.size()][eps])
    for eps in (0.05, 0.2):
        for one, other in zip(together[1][eps], together[2][eps], strict=True):
            assert one.verdict == other.verdict or Verdict.UNKNOWN in (one.verdict, other.verdict)
    with pytest.raises(ValueError, match="with 2 workers: give an engine"):
        certify_radii(*problem, eps=[0.1], engine=Here(), workers=2)


def test_a_run_writes_to_the_files_of_its_radii(tiny, tmp_path):
    run = train(tiny(epochs=1), out=tmp_path / "run", quiet=True)
    x, y = run.recipe.dataset.load().test[:6]
    together = certify_radii(run, x, y, eps=(0.01, 0.02), stages=DEFAULT_STAGES[:3])
    for name, certification in zip(("linf-0.01", "linf-0.02"), together.values(), strict=True):
        assert run.folder.certification(name).read() == certification


@pytest.mark.parametrize(
    ("eps", "message"),
    [((), "eps holds no radius"), (([0.1, 0.2],), "several radii must be numbers"), ((True,), "several radii must be")],
)
def test_what_is_no_list_of_radii_is_refused(problem, eps, message):
    with pytest.raises(ValueError, match=message):
        certify_radii(*problem, eps=eps)


NESTED: list[tuple[Threat, Threat, bool]] = [
    (Linf(0.1), Linf(0.2), True),
    (Linf(0.1), Linf(0.1), True),
    (Linf(0.2), Linf(0.1), False),
    (L2(0.1), L2(0.2), True),
    (L1(0.1), L1(0.2), True),
    (Linf(0.1), L2(0.2), False),
    (Linf(0.1), Linf(0.2, clip=None), False),
    (Linf([0.1, 0.1]), Linf([0.2, 0.2]), False),
    (Linf(0.1), Linf([0.2, 0.2]), False),
    (FirstCoordinate(0.1), FirstCoordinate(0.2), False),
    (Shell(0.1), Shell(0.2), False),
    (Linf(0.1), Shell(0.2), False),
]


@pytest.mark.parametrize(("small", "large", "inside"), NESTED, ids=str)
def test_a_region_is_inside_another_only_if_that_is_known(small, large, inside):
    assert small.is_inside(large) is inside
