"""Every `ctbench` command of README.md and docs is one: its options exist, and so do the recipes and fields in it.

The commands of README.md that need only digits also run, in their order, at a smaller size.
"""

import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from tests.cli.short import shortened

from ctbench.cli import main
from ctbench.cli.main import _imports, parser
from ctbench.cli.options import changes
from ctbench.experiments import PAPERS
from ctbench.recipes import recipe, recipes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The arguments of the commands in the blocks of a page."""
    blocks = [content for language, content in BLOCK.findall(page.read_text()) if language in ("", "sh", "console")]
    lines = [line for content in blocks for line in content.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("ctbench ")]


COMMANDS = [(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page)]


def alternatives(text: str) -> list[str]:
    """What a shell makes of {a,b} in a word."""
    inner = re.search(r"\{([^{}]*)\}", text)
    if inner is None:
        return [text]
    return [one for part in inner[1].split(",") for one in alternatives(text.replace(inner[0], part, 1))]


def test_there_are_commands():
    assert len(COMMANDS) > 40
    assert {"train", "certify", "attack", "compare", "sweep"} <= {words[0] for _, words in COMMANDS}


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[" ".join(words)[:60] for _, words in COMMANDS])
def test_a_command_of_the_documentation_can_be_read(page, words):
    _, rest = _imports([one for word in words for one in alternatives(word)] if words[0] == "sweep" else words)
    args, unknown = parser().parse_known_args(["cpu" if word == "cuda" else word for word in rest])
    assert not unknown
    if words[0] == "reproduce":
        assert args.paper in PAPERS
    if words[0] == "sweep":
        assert all(any(fnmatchcase(name, pattern) for name in recipes()) for pattern in args.recipes)
    if args.module in ("train", "show") and args.recipe in recipes() and "hinge" not in " ".join(words):
        recipe(args.recipe).with_changes(changes(args))
    elif args.module in ("train", "show"):
        assert args.recipe == "RECIPE" or args.recipe.endswith(".json") or "hinge" in " ".join(words)


SMALLER = {
    "certify": ["--samples", "6", "--quiet"],
    "radius": ["--samples", "2", "--tolerance", "0.1", "--quiet"],
    "check": ["--samples", "2"],
    "attack": ["--samples", "6", "--attacks", "pgd", "--quiet"],
    "analyse": ["--samples", "4", "--quiet"],
    "corruptions": ["--samples", "6", "--severities", "1"],
    "train": ["--epochs", "2", "--quiet"],
}
ELSEWHERE = {"cnn7.pth", "instances.csv"}  # files of the user


def shell(word: str) -> list[str]:
    """What a shell makes of a pattern of paths."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    """With the recipe of digits instead of that of MNIST, and with two short runs as those of sweep and demo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ctbench.cli.show.recipe", shortened)
    for name in ("digits_ibp", "digits_standard"):
        assert main(["train", name, "--out", f"runs/digits/{name}", "--quiet"]) == 0
        assert main(["certify", f"runs/digits/{name}", "--samples", "6", "--stages", "fast", "--quiet"]) == 0
    ran = list[str]()
    for words in commands(ROOT / "README.md"):
        if ELSEWHERE & set(words) or words[0] in ("sweep", "list", "demo"):
            continue
        small = [w.replace("mnist_small_ibp", "digits_ibp").replace("runs/demo", "runs/digits") for w in words]
        arguments = [*(path for word in small for path in shell(word)), *SMALLER.get(words[0], [])]
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        ran.append(words[0])
    assert {"train", "show", "certify", "attack", "analyse", "compare", "agree", "corruptions"} <= set(ran)
