"""`ctbench report`."""

import json
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import pooch
import pytest

from ctbench.cli import demo, main, pictured
from ctbench.cli.repeating import repeated
from ctbench.packs.archive import write
from ctbench.results import RunFolder, jsonl
from ctbench.results.checking import sealed


@pytest.fixture
def certified(succeeds, run) -> Path:
    """A run that was certified on twenty samples, with its counterexamples."""
    succeeds("certify", run, "--samples", 20, "--stages", "fast", "--eps", "0.1", "--counterexamples", "--timeout", 30)
    return run


def test_report_writes_pages_about_runs_and_packs(succeeds, certified, tmp_path):
    succeeds("train", certified / "recipe.json", "--seed", 1, "--out", "other", "--quiet")
    succeeds("certify", "other", "--samples", 20, "--stages", "fast", "--eps", "0.1", "--counterexamples")
    succeeds("pack", "other", "-o", tmp_path / "packed.zip")
    out = succeeds("report", certified, tmp_path / "packed.zip", "--title", "My & runs", "--out", "pages")
    assert out == "pages/index.html: a browser opens this file\n"
    pages = {path.name for path in Path("pages").glob("*.html")}
    assert pages == {"index.html", "curves.html", "agreements.html", "run-run.html", "run-packed.html"}
    assert "<title>My &amp; runs</title>" in Path("pages/index.html").read_text()
    for name, folder in (("run-run.html", certified), ("run-packed.html", Path("other"))):
        words = Path("pages", name).read_text()
        records = RunFolder(folder).certification("linf-0.1").read()
        falsified = sum(record.verdict == "falsified" for record in records)
        assert words.count('alt="the counterexample of sample') == min(falsified, 12) > 0
        assert words.count('alt="the difference') == min(falsified, 12)
        assert "No test images" not in words
    succeeds("report", certified, "--no-images", "--no-samples", "--out", "bare")
    bare = Path("bare/run-run.html").read_text()
    assert "--no-images" in bare
    samples = "run-run-linf-0.1-samples.csv"
    assert samples in Path("pages/run-run.html").read_text()
    assert Path("pages/files", samples).is_file()
    assert samples not in bare
    assert not Path("bare/files", samples).exists()


def test_a_run_and_its_pack_are_shown_once(succeeds, fails, certified):
    succeeds("pack", certified, "-o", "one.zip")
    shutil.copyfile("one.zip", "two.zip")
    said = succeeds("report", "one.zip", certified, "two.zip", "--out", "pages").splitlines()
    assert said == [
        f"one.zip is a pack of the run {certified}, which is shown once",
        f"two.zip is a pack of the run {certified}, which is shown once",
        "pages/index.html: a browser opens this file",
    ]
    assert {path.name for path in Path("pages").glob("run-*.html")} == {"run-run.html"}
    assert re.search(r"also given as</dt><dd>one\.zip, two\.zip<", Path("pages/run-run.html").read_text())
    shutil.copytree(certified, "copy")  # the same network with other records
    shutil.rmtree("copy/certified")
    for order in (("copy", certified), (certified, "copy")):
        assert succeeds("report", *order, "one.zip", "--out", "pages").splitlines()[0] == said[0]
    assert "two.zip is a pack of the run one.zip" in succeeds("report", "one.zip", "two.zip", "--out", "pages")
    assert {path.name for path in Path("pages").glob("run-*.html")} == {"run-one.html"}
    assert "is given twice" in fails("report", certified, "one.zip", "one.zip", "--out", "pages")


def test_a_pack_with_other_records_or_another_recipe(succeeds, certified):
    succeeds("pack", certified, "-o", "one.zip")
    succeeds("certify", certified, "--samples", 30, "--stages", "fast", "--eps", "0.1", "--resume", "--counterexamples")
    said = succeeds("report", certified, "one.zip", "--out", "pages")
    assert "shown once; its own records in certified/linf-0.1.json, certified/linf-0.1.jsonl are not shown" in said
    jsonl.write_json(certified / "recipe.json", jsonl.read_json(certified / "recipe.json") | {"source": "another"})
    assert "pack of" not in succeeds("report", certified, "one.zip", "--out", "pages")
    assert {path.name for path in Path("pages").glob("run-*.html")} == {"run-run.html", "run-one.html"}


def test_a_report_shows_what_was_analysed_and_tested_on_corrupted_images(succeeds, certified):
    other = Path("runs/other")
    shutil.copytree(certified, other)
    for path in (certified, other):
        succeeds("analyse", path, "--what", "fragmentation,box-growth", "--eps", "0.1", "--samples", 20)
        succeeds("corruptions", path, "--samples", 20, "--kinds", "fog", "--severities", "1,5")
    succeeds("report", certified, other, "--out", "pages")
    page, compared = Path("pages/run-run.html").read_text(), Path("pages/analyses.html").read_text()
    assert '<h3 id="run-run-analysis-fragmentation">fragmentation</h3>' in page
    assert "The share of neurons that switch in the region" in page
    assert "Unstable neurons (share)" in page
    assert '<h2 id="analysis-box-growth-digits-at-0.1">box-growth: digits, linf eps 0.1</h2>' in compared
    assert "Corrupted images: digits, ours-20" in compared
    assert Path("pages/files/run-run-analysis-fragmentation.csv").read_text().startswith("analysis,run,method")


@pytest.mark.parametrize(
    "change",
    [
        {"eps": "x"},
        {"eps": [0.1]},
        {"points": [{"x": "y", "values": {"a": 1.0}}, {"x": 1.0, "values": {"a": 1.0}}]},
        {"points": [{"x": None, "values": {"a": "x", "b": [], "c": {}}}]},
        {"points": [{"x": None, "values": {"layer 1: a": 1e400, "layer 2: a": 1.0}}]},
        {"points": [5]},
        {"start": "x"},
        {"start": 10**400},
    ],
)
def test_a_pack_with_an_analysis_of_anything_gets_pages_or_one_line(capsys, certified, tmp_path, change):
    record = {"eps": 0.1, "start": 0, "stop": 2, "digest": "d", "seconds": 1.0, "points": []} | change
    jsonl.append(tmp_path / "own.jsonl", [sealed(record)])
    jsonl.write_json(tmp_path / "own.json", sealed({"analysis": [1], "options": 5, "dataset": {}, "train_eps": "x"}))
    kept = {path.relative_to(certified).as_posix(): path for path in certified.rglob("*.json*") if path.is_file()}
    write(Path("odd.zip"), kept | {f"analysed/{name}": tmp_path / name for name in ("own.json", "own.jsonl")}, {})
    status, said = main(["report", "odd.zip", "--out", "x"]), capsys.readouterr()
    assert status in (0, 2)
    if status:
        assert said.err.startswith("ctbench: error: odd.zip")
        assert said.err.count("\n") == 1
        assert not Path("x").exists()


def test_the_command_of_a_page_repeats_the_records(succeeds, certified, tmp_path):
    succeeds("report", certified, "--out", "pages")
    page = Path("pages/run-run.html").read_text()
    command = re.search(r"<pre class=\"command\"><code>(.*?)</code>", page, re.DOTALL)
    assert command is not None
    (Path("run-run-recipe.json")).write_bytes(Path("pages/files/run-run-recipe.json").read_bytes())
    for step in command[1].replace("&amp;", "&").replace("\\\n", " ").split("&&"):
        assert main(shlex.split(step)[1:]) == 0, step
    first, again = (RunFolder(path).certification("linf-0.1") for path in (certified, Path("runs/run")))
    assert again.read_settings() == first.read_settings()
    assert [record.verdict for record in again.read()] == [record.verdict for record in first.read()]
    assert again.counterexamples.is_dir()


def test_a_recipe_of_the_package_is_repeated_by_its_name(tmp_path, run):
    from ctbench.recipes import recipe

    for changes, start in (
        ([], "ctbench train digits_ibp --out runs/x"),
        (["seed=3"], "ctbench train digits_ibp --seed 3 --out runs/x"),
        (["epochs=3"], "ctbench train r.json --out runs/x"),
    ):
        jsonl.write_json(
            run / "recipe.json", json.loads(json.dumps(recipe("digits_ibp").with_changes(changes).to_json()))
        )
        assert repeated(RunFolder(run), "x", "r.json") == (start, "")
    (run / "recipe.json").write_text("{}")
    command, remark = repeated(RunFolder(run), "x", "r.json")
    assert command == ""
    assert "cannot be read here" in remark
    assert str(run) not in remark


def test_images_of_other_data_are_not_shown(certified):
    records = list(RunFolder(certified).certification("linf-0.1").read())
    images = pictured.test_images(RunFolder(certified), None)
    assert images.find(records).keys() == {record.index for record in records}
    object.__setattr__(records[3], "digest", "0" * 16)
    object.__setattr__(records[4], "index", 10**6)
    assert images.find(records).keys() == {record.index for record in records} - {3, 10**6}


def test_data_that_are_not_here_are_not_downloaded(certified, monkeypatch, tmp_path):
    content = jsonl.read_json(certified / "recipe.json")
    content["dataset"] = {"name": "mnist", "augmentation": content["dataset"]["augmentation"]}
    jsonl.write_json(certified / "recipe.json", content)
    monkeypatch.setenv("CTBENCH_DATA", str(tmp_path / "none"))
    asked = list[object]()
    monkeypatch.setattr(pooch, "retrieve", lambda *arguments, **_: asked.append(arguments))
    lacking = pictured.test_images(RunFolder(certified), None).lacking
    assert "the data set mnist is not here" in lacking
    assert str(tmp_path) not in lacking
    assert asked == []
    assert not (tmp_path / "none").exists()


def test_bad_input_gets_one_line(fails, certified, tmp_path):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("")
    assert "mine holds notes.txt" in fails("report", certified, "--out", "mine")
    assert "are required: RUN|PACK|STUDY" in fails("report")
    assert "there is no run folder nowhere" in fails("report", "nowhere", "--out", "x")
    assert "is given twice" in fails("report", certified, certified, "--out", "x")
    assert "there is no file nowhere.zip" in fails("report", "nowhere.zip", "--out", "x")
    for name, written in (("../evil.json", b"{}"), ("recipe.json", b"{}")):
        with zipfile.ZipFile("bad.zip", "w") as archive:
            archive.writestr(name, written)
        assert re.search(
            r"no pack has a file of this name|this is not a pack", fails("report", "bad.zip", "--out", "x")
        )
    Path("bad.zip").write_bytes(b"no zip")
    assert "not a ZIP file" in fails("report", "bad.zip", "--out", "x")
    files = RunFolder(certified).certification("linf-0.1")
    files.records.write_text(files.records.read_text().replace('"certified"', '"falsified"', 1))
    assert "not the record of a certified sample" in fails("report", certified, "--out", "x")
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.json", b"[1]"),
        ("recipe.json", b"[" * 10**5),
        ("recipe.json", b'{"a":' * 600 + b"1" + b"}" * 600),
        ("recipe.json", b'{"method": {"name": [1]}, "network": {"module": 5}, "seed": {"a": []}}'),
        ("metrics.jsonl", b'{"seconds": "x"}\n'),
        ("metrics.jsonl", b'{"seconds": 1, "epoch": "x", "loss": NaN, "eps": [1], "natural_accuracy": 1e400}\n'),
        ("metrics.jsonl", b'{"seconds": 1, "loss": 1' + b"0" * 400 + b"}\n"),
        ("versions.json", b'["x"]'),
        ("attacked/linf-0.1-pgd.jsonl", b'{"label": [1], "prediction": {}, "attack": 1}\n'),
    ],
)
def test_a_pack_may_hold_anything_and_gets_pages_or_one_line(capsys, certified, tmp_path, name, content):
    place = tmp_path / "wrong"
    place.write_bytes(content)
    kept = {path.relative_to(certified).as_posix(): path for path in certified.rglob("*.json*") if path.is_file()}
    if name.startswith("attacked"):
        settings = jsonl.read_json(certified / "certified" / "linf-0.1.json")
        jsonl.write_json(tmp_path / "attack.json", settings)
        kept[name.replace(".jsonl", ".json")] = tmp_path / "attack.json"
    write(Path("odd.zip"), kept | {name: place}, {})
    status, said = main(["report", "odd.zip", "--out", "x"]), capsys.readouterr()
    assert status in (0, 2)
    if status:
        assert said.err.startswith("ctbench: error: odd.zip")
        assert said.err.count("\n") == 1
        assert "/tmp/ctbench-report" not in said.err
        assert not Path("x").exists()


def test_a_report_needs_jinja2_and_the_demo_does_without(fails, succeeds, certified, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install jinja2" in fails("report", certified, "--out", "x")
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    demo.show_report([certified], Path("x"))
    assert not Path("x").exists()


def test_the_demo_writes_a_report(capsys, certified):
    demo.show_report([certified], Path("demo-report"))
    assert capsys.readouterr().out == "pages about these runs: open demo-report/index.html in a browser\n"
    assert Path("demo-report/run-run.html").is_file()


def test_compare_prints_latex_and_csv(succeeds, fails, certified):
    latex = succeeds("compare", certified, "--latex")
    assert r"\begin{tabular}{lllllrrrrrrrrrrr" in latex
    assert r"natural \%" in latex
    head, line = succeeds("compare", certified, "--csv").splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True))
    assert float(cells["certification seconds"]) > 0
    assert cells["attacked %"] == ""
    assert succeeds("compare", certified, "--csv", "--group-by", "method").splitlines()[0].startswith("method,dataset,")
    assert r"\toprule" in succeeds("compare", certified, "--latex", "--group-by", "method")
    assert "not allowed with" in fails("compare", certified, "--latex", "--csv")
