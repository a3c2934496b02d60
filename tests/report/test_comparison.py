"""Runs side by side."""

import json
from io import StringIO

import pytest
from rich.console import Console

from ctbench import report
from ctbench.report.comparison import HEADINGS
from ctbench.results import Open, RunFolder, SampleRecord, Verdict, jsonl

RECIPE = {"dataset": {"name": "digits"}, "network": {"name": "cnn3"}, "method": {"name": "ibp"}}


def record(index: int, verdict: str, prediction: int = 1, **fields: object) -> SampleRecord:
    return SampleRecord(
        index=index,
        label=1,
        prediction=prediction,
        verdict=Verdict(verdict),
        stage="clean" if verdict == "misclassified" else "interval",
        bound=0.5 if verdict == "certified" else None,
        seconds=20.0,
        **fields,
    )


@pytest.fixture
def folder(tmp_path):
    """A run with two epochs, certified on four samples."""
    run = RunFolder(tmp_path / "my-run")
    run.path.mkdir()
    jsonl.write_json(run.recipe, RECIPE)
    jsonl.append(run.metrics, [{"epoch": 1, "seconds": 1.5}, {"epoch": 2, "seconds": 2.25}])
    files = run.certification("linf-0.1")
    about = {"dataset": "digits", "network": "cnn3", "network_digest": "abc", "threat": "Linf(eps=0.1)"}
    files.start({"norm": "linf", "eps": 0.1, **about}, resume=False)
    verdicts = ("certified", "falsified", "unknown", "certified", "certified", "certified")
    files.append([record(index, verdict) for index, verdict in enumerate(verdicts)])
    files.append([record(6, "unknown", open=Open.TIME, reason="60 seconds were not enough")])
    files.append([record(7, "misclassified", prediction=0)])
    return run


def test_a_row_says_what_the_files_say(folder):
    (row,) = report.rows([folder.path])
    assert (row.run, row.dataset, row.network, row.method) == ("my-run", "digits", "cnn3", "ibp")
    assert (row.eps, row.training_seconds) == (0.1, 3.75)
    assert row.certification == folder.certification("linf-0.1").read()
    about = ["my-run", "digits", "cnn3", "ibp", "linf", "0.1"]
    assert row.cells() == [*about, "8", "87.50", "75.00", "50.00", "0", "1", "1", "-", "-", "3.8 s", "2.7 min"]


def test_a_run_with_a_stage_that_failed_is_marked_and_errors_are_not_counted_as_time(folder):
    files = folder.certification("linf-0.1")
    failure = {"reason": "crown: RuntimeError: out of luck", "failed": {"crown": "RuntimeError: out of luck"}}
    files.append([record(8, "unknown", **failure), record(9, "unknown", **failure)])
    files.append([record(10, "certified", failed={"pgd": "MemoryError: "})])
    (row,) = report.rows([folder.path])
    cells = dict(zip(HEADINGS, row.cells(), strict=True))
    assert [cells[f"unknown ({why})"] for why in ("error", "time", "not decided")] == ["2", "1", "1"]
    assert cells["failed stages"] == "crown, pgd"


def attack(
    run: RunFolder, name: str, *outcomes: tuple[int, str | None], network: str = "abc", eps: float = 0.1, **more: str
) -> None:
    path = run.attacked("linf-0.1", name)
    path.parent.mkdir(exist_ok=True)
    jsonl.write_json(path.with_suffix(".json"), {"network_digest": network, "threat": f"Linf(eps={eps})"} | more)
    records = [{"index": i, "label": 1, "prediction": said, "attack": by} for i, (said, by) in enumerate(outcomes)]
    jsonl.append(path, records)


def test_a_row_says_what_attacks_left(folder):
    attack(folder, "pgd", (1, None), (1, "pgd"), (0, None), (1, None))
    attack(folder, "pgd+autoattack", (1, None), (1, "pgd"), (0, None), (1, "square"))
    attack(folder, "apgd-ce", (1, None))
    attack(folder, "other", *[(1, "pgd")] * 5, network="def")
    attack(folder, "wider", *[(1, "pgd")] * 5, eps=0.2)
    attack(folder, "foggy", *[(1, "pgd")] * 5, dataset="digits+fog-3")
    (row,) = report.rows([folder.path])
    assert row.attacked is not None
    assert (row.attacked.adversarial_accuracy, len(row.attacked)) == (0.25, 4)
    assert row.cells()[10:15] == ["0", "1", "1", "-", "25.00 of 4"]


def test_an_attack_on_other_images_is_not_that_of_the_certified_images(folder):
    attack(folder, "clean", (1, None), (1, "pgd"), dataset="digits")
    settings = folder.certification("linf-0.1").read_settings()
    foggy = folder.certification("linf-0.1-digits+fog-3")
    foggy.start(settings | {"dataset": "digits+fog-3"}, resume=False)
    rows = {row.dataset: row.attacked for row in report.rows([folder.path])}
    assert rows["digits+fog-3"] is None
    assert (rows["digits"].adversarial_accuracy, len(rows["digits"])) == (0.5, 2)
    attack(folder, "foggy", (1, "pgd"), dataset="digits+fog-3")
    accuracies = {row.dataset: row.attacked.adversarial_accuracy for row in report.rows([folder.path])}
    assert accuracies == {"digits": 0.5, "digits+fog-3": 0.0}


def test_runs_that_were_attacked_have_their_accuracy_discrepancies(folder, tmp_path):
    attack(folder, "pgd", (1, None), (1, "pgd"), (0, None), (1, None))
    path = folder.attacked("linf-0.1", "pgd")
    jsonl.append(path, [{"index": i, "label": 2, "prediction": 2, "attack": by} for i, by in ((4, "pgd"), (5, None))])
    (tmp_path / "bare").mkdir()
    jsonl.write_json(tmp_path / "bare" / "recipe.json", RECIPE)
    heading, _, line, bare = report.markdown(report.rows([folder.path, tmp_path / "bare"])).splitlines()
    assert heading.endswith("| certify | natural discrepancy | attacked discrepancy |")
    natural, attacked = (1 / 4 - 1 / 6) / (1 - 1 / 6), (1 / 2 - 3 / 6) / (1 - 3 / 6)
    assert line.endswith(f"| {natural:.3f} | {attacked:.3f} |")
    assert bare.endswith("| - | - |")


def test_each_certification_has_a_row(folder):
    files = folder.certification("linf-0.05")
    files.start({"norm": "l2", "eps": 8 / 255, "dataset": "digits", "network": "cnn3"}, resume=False)
    files.append([record(0, "certified")])
    first, second = report.rows([folder.path])
    assert first.cells()[4:10] == ["l2", "8/255", "1", "100.00", "100.00", "100.00"]
    assert second.cells()[4:7] == ["linf", "0.1", "8"]


def test_a_run_without_a_certification_has_a_row_too(tmp_path):
    (tmp_path / "bare").mkdir()
    jsonl.write_json(tmp_path / "bare" / "recipe.json", RECIPE)
    (row,) = report.rows([tmp_path / "bare"])
    assert row.cells() == ["bare", "digits", "cnn3", "ibp", *["-"] * 13]


def test_a_certified_file_of_weights_has_a_row_without_a_recipe(tmp_path):
    files = RunFolder(tmp_path / "kw_mnist").certification("linf-0.1")
    files.start({"eps": 0.1, "dataset": "mnist", "network": "conv-small"}, resume=False)
    files.append([record(0, "certified")])
    (row,) = report.rows([tmp_path / "kw_mnist"])
    expected = [
        "kw_mnist",
        "mnist",
        "conv-small",
        "-",
        "-",
        "0.1",
        "1",
        "100.00",
        "100.00",
        "100.00",
        "0",
        "0",
        "0",
        "-",
        "-",
        "-",
        "20.0 s",
    ]
    assert row.cells() == expected


def test_rows_keep_the_order_of_the_folders(folder, tmp_path):
    (tmp_path / "a").mkdir()
    jsonl.write_json(tmp_path / "a" / "recipe.json", RECIPE)
    assert [row.run for row in report.rows([folder.path, tmp_path / "a"])] == ["my-run", "a"]
    assert [row.run for row in report.rows([tmp_path / "a", folder.path])] == ["a", "my-run"]


def test_the_markdown_table_is_whole(folder):
    assert report.markdown(report.rows([folder.path])).splitlines() == [
        f"| {' | '.join(HEADINGS)} |",
        f"| {' | '.join(['---'] * 5 + ['---:'] * 12)} |",
        "| my-run | digits | cnn3 | ibp | linf | 0.1 | 8 | 87.50 | 75.00 | 50.00 "
        "| 0 | 1 | 1 | - | - | 3.8 s | 2.7 min |",
    ]


def test_the_table_shows_every_cell(folder):
    rows, shown = report.rows([folder.path]), StringIO()
    Console(file=shown, width=260).print(report.table(rows))
    text = shown.getvalue()
    assert all(heading in text for heading in HEADINGS)
    assert all(cell in text for cell in rows[0].cells())


def test_folders_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no run folder .*nowhere: check the path"):
        report.rows([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no recipe\.json"):
        report.rows([tmp_path])


def test_a_file_in_place_of_a_folder_is_named_with_the_folder(folder):
    records = folder.certification("linf-0.1").records
    with pytest.raises(
        FileNotFoundError, match=r"linf-0\.1\.jsonl is a file, but a run folder is expected: give .*my-run$"
    ):
        report.rows([records])
    with pytest.raises(FileNotFoundError, match=r"recipe\.json is a file, .*: give the folder that ctbench train made"):
        report.rows([folder.recipe])


@pytest.mark.parametrize("content", ['{"method": "ibp"}', "[1]", '{"network": null}'])
def test_a_recipe_that_is_something_else_is_refused(folder, content):
    folder.recipe.write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.json is not a recipe, an object with dataset, network, method"):
        report.rows([folder.path])


def test_attacks_that_cannot_be_read_are_refused(folder):
    attack(folder, "pgd", (1, None))
    path = folder.attacked("linf-0.1", "pgd")
    jsonl.append(path, [{"label": 1}])
    with pytest.raises(ValueError, match=r"linf-0\.1-pgd\.jsonl: a record lacks attack, prediction: remove both files"):
        report.rows([folder.path])
    jsonl.rewrite(path, [])
    path.with_suffix(".json").write_text("[1]")
    with pytest.raises(ValueError, match=r"linf-0\.1-pgd\.json is not an object: remove both files"):
        report.rows([folder.path])


def test_damaged_files_are_named(folder):
    good = folder.recipe.read_text()
    folder.recipe.write_text(good[:-5])
    with pytest.raises(ValueError, match=r"recipe\.json is not a JSON file"):
        report.rows([folder.path])
    folder.recipe.write_text(good)
    records = folder.certification("linf-0.1").records
    records.write_text("{}\n" + records.read_text())
    with pytest.raises(ValueError, match="not the record of a certified sample"):
        report.rows([folder.path])


def test_a_record_too_many_is_named(folder):
    folder.certification("linf-0.1").append([record(3, "certified")])
    with pytest.raises(ValueError, match="sample 3 has two records"):
        report.rows([folder.path])


def test_the_files_are_only_read(folder):
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    report.markdown(report.rows([folder.path]))
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert json.loads(before[folder.recipe]) == RECIPE


def test_metrics_that_hold_no_time_are_refused(folder):
    jsonl.append(folder.metrics, [{"epoch": 3, "seconds": "z"}])
    with pytest.raises(ValueError, match=r"metrics\.jsonl: seconds is 'z', it must be a number"):
        report.rows([folder.path])


def test_weights_selected_on_test_data_are_marked(folder):
    jsonl.write_json(folder.recipe, {**RECIPE, "select": "test"})
    (row,) = report.rows([folder.path])
    assert row.cells()[3] == "ibp (selected on test data)"
    jsonl.write_json(folder.recipe, {**RECIPE, "select": "best"})
    assert report.rows([folder.path])[0].cells()[3] == "ibp"


def test_an_unfinished_certification_is_marked(folder):
    files = folder.certification("l2-0.5")
    settings = {"norm": "l2", "eps": 0.5, "stages": ["a"], "timeout": 1.0, "samples": [0, 5]}
    files.start(settings, resume=False)
    files.append([record(0, "certified"), record(1, "unknown")])
    unfinished = next(row for row in report.rows([folder.path]) if row.norm == "l2")
    assert dict(zip(HEADINGS, unfinished.cells(), strict=True))["samples"] == "2 of 5"
    files.append([record(index, "certified") for index in range(2, 5)])
    finished = next(row for row in report.rows([folder.path]) if row.norm == "l2")
    assert dict(zip(HEADINGS, finished.cells(), strict=True))["samples"] == "5"
    files.start({**settings, "stages": ["a", "b"]}, resume=True)
    again = next(row for row in report.rows([folder.path]) if row.norm == "l2")
    assert dict(zip(HEADINGS, again.cells(), strict=True))["samples"] == "4 of 5"


def test_hyper_parameters_that_differ_are_columns(tmp_path):
    for name, rate, alpha in (("a", 0.001, None), ("b", 0.01, 0.5), ("c", 0.001, None)):
        (tmp_path / name).mkdir()
        method = {"name": "ibp"} if alpha is None else {"name": "mtl-ibp", "alpha": alpha}
        content = {**RECIPE, "method": method, "name": name, "seed": 0, "optimizer": {"name": "adam", "lr": rate}}
        jsonl.write_json(tmp_path / name / "recipe.json", content)
    heading, _, *lines = report.markdown(report.rows([tmp_path / name for name in "abc"])).splitlines()
    assert heading.endswith("| certify | optimizer.lr |")
    assert [line.rsplit("|", 2)[1].strip() for line in lines] == ["0.001", "0.01", "0.001"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    for name in ("a/run", "b/run", "b/other"):
        (tmp_path / name).mkdir(parents=True)
        jsonl.write_json(tmp_path / name / "recipe.json", RECIPE)
    alike = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert [row.run for row in report.rows(alike)] == [str(path) for path in alike]
    assert [row.run for row in report.rows([tmp_path / "b" / "other", alike[0]])] == ["other", "run"]


def test_a_module_of_your_own_has_the_name_of_its_class_before_it_is_certified(tmp_path):
    (tmp_path / "own").mkdir()
    given = {"name": "given", "module": "nets.mine.ResNet", "source": "0", "weights": "1"}
    jsonl.write_json(tmp_path / "own" / "recipe.json", RECIPE | {"network": given})
    (row,) = report.rows([tmp_path / "own"])
    assert row.network == "ResNet"
