"""Where the records of a certification go."""

import gc
import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tests.small import linear, right, small

from ctbench import Linf, Records, certify
from ctbench.regions import Threat
from ctbench.results import Certification, CertificationFiles, Verdict
from ctbench.verify import FAST_STAGES, Bound
from ctbench.verify.job import CHUNK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume, counterexamples and in_memory=False need a file"),
        ({"counterexamples": True}, "resume, counterexamples and in_memory=False need a file"),
        ({"path": 3}, "path is 3: give the path of a file that ends in .jsonl, or None"),
        ({"first": -1}, "first is -1: give the index of the first sample, 0 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Records(**arguments)


def test_a_path_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"records is .*: give ctbench.Records\(path\), or None"):
        certify(small(0), torch.rand(3, 4), torch.tensor([0, 1, 2]), eps=0.1, records=tmp_path / "linf.jsonl")


def test_records_of_radii_per_feature_are_read_back(tmp_path):
    model = small(0)
    x, y = right(model, 20)
    threat = Linf([0.3, 0.0, 0.1, 0.0])
    files = CertificationFiles(tmp_path / "linf.jsonl")
    result = certify(model, x, y, threat, stages=FAST_STAGES, records=Records(str(files.records)))
    assert files.read() == result
    assert files.read_settings()["eps"] == [0.3, 0.0, 0.1, 0.0]
    resuming = Records(files.records, resume=True)
    assert certify(model, x, y, threat, stages=FAST_STAGES, records=resuming) == result
    with pytest.raises(ValueError, match=r"eps was \[0.3, 0.0, 0.1, 0.0\], now 0.3"):
        certify(model, x, y, Linf(0.3), stages=FAST_STAGES, records=resuming)
    whole = certify(model, x, y, Linf(0.3), stages=FAST_STAGES)
    assert result.certified_accuracy >= whole.certified_accuracy
    falsified = [record for record in result if record.verdict is Verdict.FALSIFIED]
    assert falsified
    for record in falsified:
        moved = abs(record.counterexample - x[record.index].double().numpy())
        assert (moved <= np.array(threat.eps)).all()


@dataclass(frozen=True, kw_only=True)
class Moved(Threat):
    """Boxes around moved inputs; its repr prints a tensor."""

    name = "moved"
    by: torch.Tensor

    def region(self, x):
        return Linf(self.eps, clip=None).region(x + self.by)


def test_a_threat_model_that_prints_a_tensor_is_not_written(tmp_path):
    model = small(0)
    x, y = right(model, 3)
    threat = Moved(0.01, by=torch.zeros(4))
    assert len(certify(model, x, y, threat, stages=FAST_STAGES)) == 3
    with pytest.raises(ValueError, match=r"the threat model 'moved' shows a tensor, of which only some numbers"):
        certify(model, x, y, threat, stages=FAST_STAGES, records=Records(tmp_path / "moved.jsonl"))


def verdicts(certification) -> list[tuple[int, str]]:
    return [(record.index, record.outcome) for record in certification]


@pytest.mark.parametrize("first", [0, 100])
def test_records_may_stay_in_their_file(tmp_path, first):
    model = small(0)
    x, y = right(model, 20)
    place = Records(tmp_path / "linf.jsonl", first=first, in_memory=False)
    result = certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=place)
    whole = certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=Records(first=first))
    assert verdicts(result) == verdicts(whole)
    assert len({verdict for _, verdict in verdicts(whole)}) > 1
    assert result == CertificationFiles(tmp_path / "linf.jsonl").read()
    started = list[Certification]()
    again = replace(place, resume=True, on_start=started.append)
    assert certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=again) == result == started[0]
    with pytest.raises(ValueError, match="in_memory=False need a file"):
        Records(in_memory=False)


def test_samples_without_time_are_unknown_and_follow_with_more_effort(tmp_path):
    model = small(0)
    x, y = right(model, 20)
    place = Records(tmp_path / "linf.jsonl", in_memory=False)
    certify(model, x[:5], y[:5], eps=0.1, stages=FAST_STAGES[:1], records=place)
    again = replace(place, resume=True)
    over = certify(model, x, y, eps=0.1, stages=FAST_STAGES, total=1e-9, records=again)
    assert len(over) == 20
    kept = [record for record in over if record.finished]
    assert list(over.finished) == kept
    assert {record.index for record in kept} <= set(range(5))
    result = certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=again)
    assert verdicts(result) == verdicts(certify(model, x, y, eps=0.1, stages=FAST_STAGES))
    assert CertificationFiles(tmp_path / "linf.jsonl").read() == result
    assert result.seconds_by_stage.keys() == certify(model, x, y, eps=0.1, stages=FAST_STAGES).seconds_by_stage.keys()


def test_the_memory_of_the_driver_does_not_grow_with_the_records(tmp_path):
    """Between the first records of the second and of the fourth chunk: nothing of the chunks themselves is there."""
    x, y, held = torch.rand(4 * CHUNK, 1), torch.zeros(4 * CHUNK, dtype=torch.long), dict[int, int]()

    def on_record(record) -> None:
        if record.index % CHUNK == 0:
            gc.collect()
            held[record.index // CHUNK] = tracemalloc.get_traced_memory()[0]

    place = Records(tmp_path / "linf.jsonl", in_memory=False, on_record=on_record)
    tracemalloc.start()
    try:
        certify(linear([[1.0], [0.0]], [2.0, 0.0]), x, y, eps=0.1, stages=[Bound(domain="interval")], records=place)
    finally:
        tracemalloc.stop()
    assert held.keys() == {0, 1, 2, 3}
    assert held[3] - held[1] < 60 * 2 * CHUNK
