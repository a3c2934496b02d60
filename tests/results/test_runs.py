"""The files of a run folder."""

import pytest

from ctbench.results import CertificationFiles


def test_two_processes_do_not_write_the_same_records(tmp_path):
    files, others = (CertificationFiles(tmp_path / "new" / "records.jsonl") for _ in range(2))
    refused = pytest.raises(ValueError, match=r"another process writes .*records.jsonl: wait for it, or choose")
    with files.alone(), refused, others.alone():
        pass
    with others.alone():
        pass
