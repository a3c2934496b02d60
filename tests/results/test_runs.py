"""The files of a run folder."""

import pytest

from ctbench.results import CertificationFiles, RunFolder


def test_two_processes_do_not_write_the_same_records(tmp_path):
    files, others = (CertificationFiles(tmp_path / "new" / "records.jsonl") for _ in range(2))
    refused = pytest.raises(ValueError, match=r"another process writes .*records.jsonl: wait for it, or choose")
    with files.alone(), refused, others.alone():
        pass
    with others.alone():
        pass


@pytest.mark.parametrize("inside", ["a", "final/0000-seed-0"])
def test_a_folder_of_runs_names_one_of_them(tmp_path, inside):
    with pytest.raises(FileNotFoundError, match="give the folder that ctbench train made"):
        RunFolder(tmp_path).require()
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "recipe.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"give the runs in it, e.g. .*{inside}$"):
        RunFolder(tmp_path).require()
