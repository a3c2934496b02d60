"""The facts about the package are the same in every file that states them."""

import re
import tomllib
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
