"""Runs over seeds: means and intervals, bold only where no interval overlaps, and what must not be averaged."""

import re
from collections.abc import Mapping
from io import StringIO

import pytest
from rich.console import Console
from tests.report.test_comparison import record

from ctbench import report
from ctbench.report.grid import Bold, Grid
from ctbench.report.groups import NOTE, Group, group_cells, grouped, separating
from ctbench.report.intervals import Spread
from ctbench.results import RunFolder, jsonl


@pytest.fixture
def make(tmp_path):
    """A run of a method and a seed with this many certified samples of ten."""

    def make(
        method: str,
        seed: int,
        certified: int,
        /,
        *,
        samples: int = 10,
        eps: float = 0.1,
        settings: Mapping[str, object] | None = None,
        **recipe: object,
    ) -> RunFolder:
        run = RunFolder(tmp_path / f"{method}-{seed}-{certified}-{samples}{len(recipe)}")
        run.path.mkdir(exist_ok=True)
        content = {"dataset": {"name": "digits"}, "network": {"name": "cnn3"}, "method": {"name": method}, "seed": seed}
        jsonl.write_json(run.recipe, content | recipe)
        files = run.certification(f"linf-{eps:g}")
        about = {"norm": "linf", "eps": eps, "dataset": "digits", "network": "cnn3", "samples": [0, samples]}
        files.start(about | (settings or {}), resume=False)
        files.append([record(i, "certified" if i < certified else "unknown") for i in range(samples)])
        return run

    return make


def groups(*runs: RunFolder, **options) -> list[Group]:
    return grouped(report.rows([run.path for run in runs]), **options)


def spread_around(make, *, eps: float = 0.1, **certified: int) -> list[RunFolder]:
    """Three runs of each method, of 100 samples, with one certified sample less, as many, and one more."""
    return [
        make(method, seed, count + seed - 1, samples=100, eps=eps)
        for method, count in certified.items()
        for seed in range(3)
    ]


def test_runs_of_a_method_are_one_group(make):
    one, two = groups(*(make("ibp", seed, seed + 4) for seed in range(3)), make("sabr", 0, 9), make("sabr", 1, 7))
    assert (one.label, one.runs, one.samples) == ("ibp", ("ibp-0-4-100", "ibp-1-5-100", "ibp-2-6-100"), 10)
    assert one.certified == Spread.of([40.0, 50.0, 60.0])
    assert one.natural == Spread.of([100.0, 100.0, 100.0])
    assert (two.label, two.certified.mean) == ("sabr", 80.0)


def test_the_best_is_bold_only_if_its_interval_overlaps_no_other(make):
    clear = spread_around(make, ibp=20, sabr=90)
    headings, (ibp, sabr) = group_cells(groups(*clear))
    place = headings.index("certified %")
    assert (ibp[place], sabr[place]) == ("20.00", "90.00")
    assert (isinstance(ibp[place], Bold), isinstance(sabr[place], Bold)) == (False, True)
    natural = headings.index("natural %")
    assert not isinstance(sabr[natural], Bold), "a tie is not bold"
    overlapping = [*clear[3:], make("taps", 3, 70, samples=100), make("taps", 4, 100, samples=100)]
    assert not any(isinstance(cell, Bold) for line in group_cells(groups(*overlapping))[1] for cell in line)
    single = [*clear[3:], make("taps", 5, 10, samples=100)]
    assert not any(isinstance(cell, Bold) for line in group_cells(groups(*single))[1] for cell in line)
    equal = [*clear[3:], *(make("taps", seed, 10, samples=100) for seed in range(3))]
    assert not any(isinstance(cell, Bold) for line in group_cells(groups(*equal))[1] for cell in line)
    others = [*clear[3:], *(make("taps", seed, 1 + seed) for seed in range(3))]
    assert not any(isinstance(cell, Bold) for line in group_cells(groups(*others))[1] for cell in line), "other samples"
    alone = group_cells(groups(*clear[3:]))[1]
    assert not any(isinstance(cell, Bold) for line in alone for cell in line)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stages", ["BranchAndBound()"]), ("timeout", 9.0), ("threat", "Linf(eps=0.1, clip=None)")],
)
def test_other_verifications_are_not_averaged(make, name, value):
    alike = {"stages": ["Bound(domain=Interval())"], "timeout": 5.0, "threat": "Linf(eps=0.1, clip=(0, 1))"}
    runs = [make("ibp", 0, 5, settings=alike), make("ibp", 1, 6, settings=alike)]
    assert groups(*runs)[0].certified == Spread.of([50.0, 60.0])
    other = make("ibp", 2, 7, settings=alike | {name: value})
    with pytest.raises(ValueError, match=f"one group, but their certifications differ in {name}: certify them alike"):
        groups(*runs, other)


def test_an_attempt_that_is_not_at_its_end_is_not_averaged(make):
    stages = [["Bound(domain=Interval())"], ["Bound(domain=Interval())", "BranchAndBound()"]]
    runs = [make("ibp", seed, 5, settings={"stages": stages[0], "timeout": 5.0}) for seed in (0, 1)]
    assert groups(*runs)[0].certified.count == 2
    files = runs[0].certification("linf-0.1")
    kept = {name: value for name, value in files.read_settings().items() if name != "checksum"}
    files.start(kept | {"stages": stages[1]}, resume=True)
    with pytest.raises(ValueError, match="ibp-0-5-100 is certified on 5 of 10 samples: finish it"):
        groups(*runs)


def test_other_settings_are_no_rivals(make):
    runs = [*spread_around(make, ibp=20), *spread_around(make, eps=0.2, sabr=90)]
    assert not any(isinstance(cell, Bold) for line in group_cells(groups(*runs))[1] for cell in line)


def test_tables_say_how_the_interval_is_made(make):
    found = groups(*spread_around(make, ibp=20, sabr=90))
    text = report.groups_markdown(found)
    assert "| **90.00** | 1.00 | 87.52 to 92.48 |" in text
    assert "| 20.00 | 1.00 | 17.52 to 22.48 |" in text
    assert text.endswith(NOTE)
    assert "Student's t" in NOTE
    console = Console(file=StringIO(), width=300, force_terminal=True, color_system="standard")
    console.print(report.groups_table(found))
    assert re.search(r"\x1b\[1m *90\.00", console.file.getvalue())
    assert not re.search(r"\x1b\[1m *20\.00", console.file.getvalue())


def test_intervals_of_accuracies_end_at_0_and_100_percent(make):
    found = groups(make("ibp", 0, 1), make("ibp", 1, 9))
    assert found[0].certified.interval[0] < 0
    assert found[0].certified.interval[1] > 100
    assert "0.00 to 100.00" in report.groups_markdown(found)
    assert report.groups_csv(found).splitlines()[1].endswith(",0,100")


def test_bold_cells_stay_bold_in_a_turned_table():
    console = Console(file=StringIO(), width=16, force_terminal=True, color_system="standard")
    console.print(Grid(headings=["name", "x", "y"], rows=[["first", Bold("12345678"), "1"], ["second", "2", "333333"]]))
    assert re.search(r"\x1b\[1m *12345678", console.file.getvalue())


def test_groups_by_a_hyper_parameter(make):
    runs = [make("mtl_ibp", seed, seed + 3, method={"name": "mtl_ibp", "alpha": 1}) for seed in (0, 1)]
    runs += [make("mtl_ibp", seed, seed + 5, method={"name": "mtl_ibp", "alpha": 0.5}) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"one group, but differ in method.alpha: add it to --group-by, or to --over"):
        groups(*runs)
    found = groups(*runs, by=("method", "method.alpha"))
    assert [(group.label, group.certified.mean) for group in found] == [
        ("mtl_ibp, method.alpha 1", 35.0),
        ("mtl_ibp, method.alpha 0.5", 55.0),
    ]
    assert len(groups(*runs, over=("seed", "method.alpha"))) == 1


def test_rows_are_separated_by_the_method_and_by_what_differs_within_one(make):
    lr = {"optimizer": {"lr": 0.1}}
    runs = [make("ibp", seed, seed + 4, **lr) for seed in range(2)] + [make("sabr", 0, 9, optimizer={"lr": 0.2})]
    rows = report.rows([run.path for run in runs])
    assert separating(rows) == ("method",), "methods may differ in other fields, and runs of one in the seed"
    other = make("ibp", 0, 6, **lr, l1=0.5, swa={"every": 2})
    rows = report.rows([run.path for run in (*runs, other)])
    assert separating(rows) == ("method", "l1", "swa.every")
    assert [group.runs for group in grouped(rows, separating(rows))] == [
        ("ibp-0-4-101", "ibp-1-5-101"),
        ("sabr-0-9-101",),
        ("ibp-0-6-103",),
    ]
    assert separating(rows, over=("l1", "swa.every")) == ("method",)


@pytest.mark.parametrize(
    ("name", "meant"), [("lr", "did you mean optimizer.lr? "), ("metod", "did you mean method? "), ("zzzzz", "")]
)
def test_a_field_that_no_run_has_gets_near_ones_and_where_all_are(make, name, meant):
    with pytest.raises(ValueError, match="no run has the field") as error:
        groups(make("ibp", 0, 2, optimizer={"lr": 0.1}, **{f"field_{n}": n for n in range(99)}), by=(name,))
    assert str(error.value) == (
        f"no run has the field {name!r}: {meant}ctbench show RUN/recipe.json lists the fields of a recipe; besides, "
        f"there are run, dataset, network, norm, eps, seed"
    )


def test_what_must_not_be_averaged_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"ibp-0-2-100 and ibp-0-3-100 both have seed 0: give each run once"):
        groups(make("ibp", 0, 2), make("ibp", 0, 3))
    with pytest.raises(ValueError, match=r"certified on 10 samples and ibp-1-2-80 on other ones, 8"):
        groups(make("ibp", 3, 2), make("ibp", 1, 2, samples=8))
    with pytest.raises(ValueError, match=r"no run has the field 'sed': did you mean seed\? ctbench show RUN/recipe"):
        groups(make("ibp", 4, 2), over=("sed",))
    with pytest.raises(ValueError, match=r"differ in epochs"):
        groups(make("ibp", 6, 2), make("ibp", 1, 2, epochs=3))
    unfinished = make("ibp", 5, 2)
    files = unfinished.certification("linf-0.1")
    files.records.write_text("".join(files.records.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(ValueError, match=r"is certified on 4 of 10 samples: finish it"):
        groups(unfinished)
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    jsonl.write_json(new.recipe, {})
    with pytest.raises(ValueError, match="none of the runs has been certified"):
        groups(new)


def test_weights_that_were_selected_on_test_data_are_a_group_of_their_own(make):
    found = groups(make("ibp", 0, 2), make("ibp", 1, 3, select="test"))
    assert [group.label for group in found] == ["ibp", "ibp (selected on test data)"]


def test_sabr_and_taps_on_small_boxes_are_two_methods(make):
    staps = {"name": "sabr", "inner": {"name": "taps"}}
    found = groups(
        *(make("sabr", seed, 4) for seed in range(2)), *(make("sabr", seed, 6, method=staps) for seed in range(2))
    )
    assert [(group.label, group.certified.mean) for group in found] == [("sabr", 40.0), ("staps", 60.0)]
