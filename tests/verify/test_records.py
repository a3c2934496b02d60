"""Where the records of a certification go."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.small import right, small

from ctbench import Linf, Records, certify
from ctbench.regions import Threat
from ctbench.results import CertificationFiles, Verdict
from ctbench.verify import FAST_STAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume and counterexamples need a file"),
        ({"counterexamples": True}, "resume and counterexamples need a file"),
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
