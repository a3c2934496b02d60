"""The facts about the package are the same in every file that states them."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import ctbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_the_project():
    assert ctbench.__version__ == PROJECT["version"]


def test_the_citation_names_this_version_and_its_authors():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == PROJECT["version"]
    assert re.search(r"^license: (.*)$", citation, re.MULTILINE)[1] == PROJECT["license"]
    assert re.findall(r"^  - name: (.*)$", citation, re.MULTILINE) == [author["name"] for author in PROJECT["authors"]]


def test_the_changelog_begins_with_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == PROJECT["version"]


def test_the_hosted_workflow_runs_the_checks_on_each_python_that_the_package_names():
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", line)]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r'"(3\.\d+)"', workflow) == named
    assert "run: .ci/run" in workflow


def test_hooks_before_a_commit_run_tools_of_pinned_versions():
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    tools = re.findall(r"entry: (\S+)", hooks)
    assert tools
    assert set(tools) <= set(pinned)
    assert hooks.count("language: system") == len(tools)


def test_all_that_the_checks_need_is_pinned():
    extras = PROJECT["optional-dependencies"]
    needed = {re.match(r"[\w-]+", line)[0] for line in (*PROJECT["dependencies"], *extras["dev"], *extras["docs"])}
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert needed <= pinned


def test_every_package_that_is_needed_is_pinned():
    """Those of the project, and those that the installed ones need in turn."""
    pinned = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalnum()}
    extras = (entry for several in PROJECT["optional-dependencies"].values() for entry in several)
    names = {_name(entry) for entry in (*PROJECT["dependencies"], *extras)}
    seen = set[str]()
    while names:
        name = names.pop()
        seen.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform, or another extra
        needed = {_name(entry) for entry in required if "extra ==" not in entry}
        names |= {one for one in needed if _is_installed(one)} - seen
    assert {name for name in seen if name not in pinned} == set()


def _name(entry: str) -> str:
    """The normal form of the name of a package, from a line such as "Import_Linter>=2.1"."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*\w", entry)[0]).lower()


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return not name.startswith(("nvidia-", "triton"))  # of torch's builds for GPUs


def test_messages_name_packages_that_any_index_has_and_that_are_in_an_extra():
    """`pip install 'ctbench[figures]'` would not work from a clone, `pip install '.[figures]'` only there."""
    extras = PROJECT["optional-dependencies"]
    known = {_name(entry) for several in extras.values() for entry in several} | {"pandas"}
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert "ctbench[" not in text, path
        assert set(re.findall(r"pip install ([\w-]+)", text)) <= known, path
