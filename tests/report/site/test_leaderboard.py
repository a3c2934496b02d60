"""The tables of the leaderboard."""

import csv
import io

from tests.report.site.runs import make_run, subjects

from ctbench.report.site.leaderboard import colours, front_chart, front_csv, leaderboard, published_table, settings

NO_SEARCH = {"stages": ["Bound(domain=Interval())", "Falsify(attack=PGD())"]}


def cells(table, heading: str) -> list[str]:
    return [line.cells[table.headings.index(heading)].text for line in table.lines]


def test_runs_that_differ_in_their_seeds_are_one_row_with_an_interval(tmp_path):
    runs = [
        make_run(tmp_path / f"ibp-{seed}", "c" * good + "f" * (10 - good), seed=seed)
        for seed, good in enumerate((6, 8))
    ]
    other = make_run(tmp_path / "sabr", "cccffffffm", method="sabr")
    (setting,) = settings(subjects([*runs, other]))
    table = leaderboard(setting)
    assert cells(table, "method") == ["ibp", "sabr"]
    assert cells(table, "certified %") == ["70.00 ± 127.06", "30.00"]  # 12.706 * 10 of two seeds
    assert cells(table, "runs") == ["2 seeds", "sabr"]
    assert table.lines[0].cells[table.headings.index("runs")].links == (
        ("seed 0", "run-ibp-0.html"), ("seed 1", "run-ibp-1.html"),
    )  # fmt: skip
    first, second = csv.DictReader(io.StringIO(table.csv))
    assert (first["certified %"], first["seeds"], second["certified ±"]) == ("70", "2", "")


def test_only_an_interval_above_all_others_is_bold(tmp_path):
    methods = {"a": (79, 80, 81), "b": (49, 50, 51), "c": (80,)}
    runs = [
        make_run(tmp_path / f"{method}-{seed}", "c" * good + "f" * (100 - good), method=method, seed=seed)
        for method, goods in methods.items()
        for seed, good in enumerate(goods)
    ]
    bold = {}
    for left_out in ("c", "none"):
        shown = [run for run in runs if not run.path.name.startswith(left_out)]
        (setting,) = settings(subjects(shown))
        table = leaderboard(setting)
        place = table.headings.index("certified %")
        bold[left_out] = [line.cells[0].text for line in table.lines if line.cells[place].bold]
    assert bold == {"c": ["a"], "none": []}  # a single run as good has no interval, so nothing is above it


def test_runs_with_other_recipes_samples_or_effort_are_not_averaged(tmp_path):
    runs = [
        make_run(tmp_path / "a", seed=0),
        make_run(tmp_path / "b", seed=1, more={"epochs": 5}),
        make_run(tmp_path / "c", "ccc", seed=2),
        make_run(tmp_path / "d", seed=3, settings={"timeout": 9.0}),
        make_run(tmp_path / "e", seed=4, settings={"stages": ["BranchAndBound()"]}),
        make_run(tmp_path / "f", seed=5, settings={"threat": "Linf(eps=0.1, clip=None)"}),
        make_run(tmp_path / "g", seed=6),  # like a, but for its seed
    ]
    (setting,) = settings(subjects(runs))
    assert [[subject.name for subject, _ in entry.members] for entry in setting.entries if len(entry.members) > 1] == [
        ["a", "g"]
    ]
    assert len(setting.entries) == 6
    assert "not all of the same samples" in leaderboard(setting).note


def test_runs_of_one_seed_are_not_averaged(tmp_path):
    (setting,) = settings(subjects([make_run(tmp_path / name, seed=0) for name in "ab"]))
    assert [len(entry.members) for entry in setting.entries] == [1, 1]


def test_other_samples_are_neither_bold_nor_on_one_front(tmp_path):
    runs = [make_run(tmp_path / f"a-{n}", "c" * n + "m" * (100 - n), method="a", seed=n) for n in (49, 50, 51)]
    runs += [make_run(tmp_path / f"b-{n}", "c" * n + "m" * (20 - n), method="b", seed=n) for n in (17, 18, 19)]
    (setting,) = settings(subjects(runs))
    table = leaderboard(setting)
    assert "not all of the same samples" in table.note
    assert not any(cell.bold for line in table.lines for cell in line.cells)
    picture = front_chart(setting, {"a": 0, "b": 1})
    assert "not all of the same samples" in picture.note
    assert picture.front == ""
    assert "no" not in [row["on the front"] for row in csv.DictReader(io.StringIO(front_csv(setting)))]


def test_an_unfinished_second_attempt_keeps_the_remarks(tmp_path):
    bounds = {"stages": ["Bound(domain=Interval())"]}
    runs = [make_run(tmp_path / f"a-{seed}", "ccccuuuu", seed=seed, settings=bounds) for seed in (0, 1)]
    files = runs[0].certification("linf-0.1")
    kept = {name: value for name, value in files.read_settings().items() if name != "checksum"}
    files.start(kept | {"stages": [*kept["stages"], "BranchAndBound()"]}, resume=True)
    (setting,) = settings(subjects(runs))
    remarks = [[remark.word for remark in entry.remarks] for entry in setting.entries]
    assert sorted(remarks) == [["incomplete verifier"], ["unfinished", "incomplete verifier"]]


def test_fields_tell_rows_apart_and_files_have_all_of_them(tmp_path):
    recipes = [
        {"l1": k, "lr": k + 1, "epochs": k + 2, "batch_size": k + 3, "shi": shi} for k, shi in ((0, 1), (1, 1), (1, 2))
    ]
    runs = [make_run(tmp_path / f"r{place}", more=more) for place, more in enumerate(recipes)]
    (setting,) = settings(subjects(runs))
    assert len({entry.label for entry in setting.entries}) == 3
    assert [entry.detail.endswith("… 2 more") for entry in setting.entries] == [True, False, False]
    rows = list(csv.DictReader(io.StringIO(leaderboard(setting).csv)))
    assert all("more" not in row["method"] and "shi" in row["method"] for row in rows)


def test_each_data_set_norm_and_radius_has_its_own_table(tmp_path):
    runs = [
        make_run(tmp_path / "a", eps=0.2),
        make_run(tmp_path / "b", eps=0.1),
        make_run(tmp_path / "c", dataset="mnist"),
    ]
    assert [setting.title for setting in settings(subjects(runs))] == [
        "digits, linf, eps 0.1", "digits, linf, eps 0.2", "mnist, linf, eps 0.1",
    ]  # fmt: skip


def remarks(run) -> list[str]:
    (setting,) = settings(subjects([run]))
    return [remark.word for remark in setting.entries[0].remarks]


def test_remarks_qualify_rows(tmp_path):
    assert remarks(make_run(tmp_path / "fine", "ccccccffum")) == []
    assert remarks(make_run(tmp_path / "late", "cccccctfum")) == ["timeouts"]
    assert remarks(make_run(tmp_path / "bounds", settings=NO_SEARCH)) == ["incomplete verifier"]
    assert remarks(make_run(tmp_path / "part", settings={"samples": [0, 20]})) == ["unfinished"]
    assert remarks(make_run(tmp_path / "test", more={"select": "test"})) == ["chosen on test data"]
    assert remarks(make_run(tmp_path / "tuned", settings={"selected_on": "test"})) == ["chosen on test data"]


def test_published_results_are_in_another_table_and_hollow(tmp_path):
    runs = [
        make_run(tmp_path / "a", dataset="mnist"),
        make_run(tmp_path / "b", "ccccccccfm", dataset="mnist", method="sabr"),
    ]
    shown = subjects(runs)
    (setting,) = settings(shown)
    table = published_table(setting)
    assert table is not None
    assert table.kind == "published"
    assert "CTBench, Table 1" in cells(table, "printed in")
    assert set(cells(leaderboard(setting), "method")) == {"ibp", "sabr"}
    picture = front_chart(setting, colours(shown))
    assert picture is not None
    assert [path.hollow for path in picture.paths] == [False, False, True]
    assert all("published" in point.text for point in picture.paths[-1].points)
    digits = settings(subjects([make_run(tmp_path / "c")]))[0]
    assert published_table(digits) is None


def test_dominated_runs_are_faint(tmp_path):
    shown = subjects(
        [make_run(tmp_path / "best", "ccccccccff"), make_run(tmp_path / "worse", "ccccfffffm", method="pgd")]
    )
    (setting,) = settings(shown)
    picture = front_chart(setting, colours(shown))
    assert picture is not None
    points = {point.label: point for path in picture.paths for point in path.points}
    assert (points["ibp"].faint, points["pgd"].faint) == (False, True)
    assert points["ibp"].text == "ibp: natural 100.00 %, certified 80.00 %, on the front"
    assert points["ibp"].href == "run-best.html"


def test_a_part_of_a_recipe_is_named_and_not_listed(tmp_path):
    inner = ({"name": "ibp"}, {"name": "crown-ibp", "slope": "same"})
    runs = [
        make_run(tmp_path / one["name"], method="sabr", more={"method": {"name": "sabr", "inner": one}})
        for one in inner
    ]
    (setting,) = settings(subjects(runs))
    assert {entry.label for entry in setting.entries} == {"sabr, method.inner ibp", "sabr, method.inner crown-ibp"}


def test_taps_on_small_boxes_has_its_own_name(tmp_path):
    inner = ({"name": "ibp"}, {"name": "taps", "scale": 1.0})
    runs = [
        make_run(tmp_path / one["name"], method="sabr", more={"method": {"name": "sabr", "inner": one}})
        for one in inner
    ]
    (setting,) = settings(subjects(runs))
    assert {(entry.method, entry.label) for entry in setting.entries} == {("sabr", "sabr"), ("staps", "staps")}


def test_what_a_remark_says_of_its_row_is_not_said_of_all(tmp_path):
    runs = [
        make_run(tmp_path / letters, letters, method=method) for letters, method in (("ctfm", "ibp"), ("tttf", "pgd"))
    ]
    (setting,) = settings(subjects(runs))
    table = leaderboard(setting)
    said = [one.said for line in table.lines for cell in line.cells for one in cell.remarks if one.word == "timeouts"]
    late = "samples ran out of time, so they do not count as certified"
    assert said == [f"{late}: 1", f"{late}: 3"]
    assert [one.meaning for one in table.remarks if one.word == "timeouts"] == [late]
