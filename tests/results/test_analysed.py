"""Records of analyses as files: written, read again, continued, and refused where they are damaged."""

import pytest

from ctbench.results import AnalysisFiles, Measurement, Measurements, PartRecord, RunFolder, jsonl
from ctbench.results.checking import sealed

SETTINGS = {"analysis": "it", "seed": 0}


def record(start: int, stop: int, *, eps: float = 0.1, **values) -> PartRecord:
    points = (Measurement({"each": [float(k) for k in range(start, stop)], **values}), Measurement({"part": 1.5}, 0.25))
    return PartRecord(eps=eps, start=start, stop=stop, digest="d", seconds=0.5, points=points)


@pytest.fixture
def files(tmp_path) -> AnalysisFiles:
    return RunFolder(tmp_path).analysis("it")


def test_records_are_read_as_they_were_written(files):
    assert files.start(SETTINGS) == Measurements(())
    for one in (record(0, 2), record(2, 5), record(0, 2, eps=1 / 3)):
        files.append(one)
    found = files.read()
    assert found.records == (record(0, 2), record(2, 5), record(0, 2, eps=1 / 3))
    assert found.values("each", 0.1) == [0, 1, 2, 3, 4]
    assert found.samples(0.1) == 5
    assert files.start(SETTINGS) == found
    assert RunFolder(files.records.parents[1]).analyses() == [files]
    assert found.only([(0.1, 2, 5)]).records == (record(2, 5),)


def test_a_line_that_was_cut_off_is_not_kept(files):
    files.start(SETTINGS)
    files.append(record(0, 2))
    with files.records.open("a") as file:
        file.write('{"eps": 0.1')
    assert files.start(SETTINGS).records == (record(0, 2),)
    files.append(record(2, 5))
    assert len(files.read().records) == 2


def test_other_settings_are_refused(files):
    files.start({**SETTINGS, "seed": 5})
    files.start(SETTINGS)  # there was no record yet
    files.append(record(0, 2))
    with pytest.raises(ValueError, match=r"was made under other settings \(seed was 0, now 1\)"):
        files.start({**SETTINGS, "seed": 1})


@pytest.mark.parametrize("name", ["run", "method"])
def test_another_name_of_the_same_network_keeps_its_records(files, name):
    files.start(SETTINGS | {name: "old", "network_digest": "a"})
    files.append(record(0, 2))
    assert files.start(SETTINGS | {name: "new", "network_digest": "a"}).records == (record(0, 2),)
    assert files.read_settings()[name] == "new"
    with pytest.raises(ValueError, match="network_digest was 'a', now 'b'"):
        files.start(SETTINGS | {name: "new", "network_digest": "b"})


def test_damaged_files_are_refused(files):
    files.start(SETTINGS)
    jsonl.append(files.records, [sealed({"eps": 0.1})])
    with pytest.raises(ValueError, match=r"it.jsonl, line 1: not the record of an analysis: its fields must be"):
        files.read()
    files.records.write_text("")
    wrong = record(0, 2)
    files.append(PartRecord(**{**vars(wrong), "stop": 3}))
    with pytest.raises(ValueError, match="2 numbers for 3 samples"):
        files.read()
    files.records.write_text("")
    files.append(wrong)
    files.append(wrong)
    with pytest.raises(ValueError, match="a part has two records"):
        files.read()
    files.records.write_text("")
    files.append(wrong)
    files.records.write_text(files.records.read_text().replace("1.5", "2.5"))
    with pytest.raises(ValueError, match="line 1: its checksum does not match: it was edited"):
        files.read()
    files.settings.write_text(files.settings.read_text().replace("0", "1"))
    with pytest.raises(ValueError, match="not the settings of an analysis: their checksum does not match"):
        files.read_settings()
    files.settings.write_text("{")
    with pytest.raises(ValueError, match=r"not a JSON file .*: restore the file, or choose another place"):
        files.read_settings()
    files.settings.write_text("[]")
    with pytest.raises(ValueError, match="holds no settings of an analysis but list"):
        files.read_settings()


def test_one_process_writes_at_a_time(files):
    with files.alone(), pytest.raises(ValueError, match="another process writes"), files.alone():
        pass


def test_means_weigh_samples():
    found = Measurements((record(0, 4, part=1.0), record(4, 5, part=6.0)))
    assert found.mean("part") == 2.0
    assert found.summary("each").mean == 2.0
    assert found.summary("each").count == 5
    assert found.summary("each").deviation == pytest.approx(2.5**0.5)
    assert found.summary("each").error == pytest.approx(0.5**0.5)
    assert found.quantities() == ["each", "part"]
    assert found.quantities(x=0.25) == ["part"]


def test_quantities_of_an_analysis_with_an_axis():
    points = tuple(Measurement({"loss": x, f"only {x:g}": 0.0}, x) for x in (0.5, 1.0))
    found = Measurements((PartRecord(eps=0.1, start=0, stop=2, digest="d", seconds=0.5, points=points),))
    assert found.quantities() == ["loss", "only 0.5", "only 1"]
    assert found.quantities(x=1.0) == ["loss", "only 1"]
    with pytest.raises(ValueError, match=r"'loss' has a number at each of several places, 0\.5, 1: name one as x"):
        found.mean("loss")
    with pytest.raises(ValueError, match=r"there is no quantity 'gain': there are loss, only 0\.5, only 1"):
        found.mean("gain")
