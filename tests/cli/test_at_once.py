"""Commands and errors that need no torch do not import it: they answer at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctbench.attacks.evaluation import DEFAULT
from ctbench.cli.arguments.attack import ATTACKS
from ctbench.cli.main import COMMANDS, parser
from ctbench.results import CertificationFiles

CODE = """
import sys
from ctbench.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as leaving:
    status = leaving.code
assert "torch" not in sys.modules, "torch was imported"
sys.exit(status)
"""
NAMES = list(parser()._subparsers._group_actions[0].choices)


def called(*arguments: object, status: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in NAMES)])
def test_help(arguments):
    called(*arguments, status=0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tarin"],
        *([name, "--no-such-option"] for name in NAMES),
        ["certify", "run", "--timeout", "-1"],
        ["certify", "run", "--samples", "none"],
        ["attack", "run", "--eps", "8:255"],
        ["list", "colours"],
    ],
)
def test_errors_of_usage(arguments):
    assert "error: " in called(*arguments, status=2)


def test_compare_merge_and_agree(run, succeeds):
    for samples in ("0:4", "4:8"):
        succeeds("certify", run, "--samples", samples, "--stages", "fast", "--out", f"{samples[0]}.jsonl")
    assert "8 samples, linf eps 0.05" in called("merge", "all.jsonl", "0.jsonl", "4.jsonl", status=0)
    assert len(CertificationFiles(Path("all.jsonl")).read()) == 8
    succeeds("certify", run, "--samples", 8, "--stages", "fast")
    assert "certified" in called("compare", run, status=0)
    called("agree", "all.jsonl", run, status=0)


def test_each_command_has_a_module_and_the_attacks_are_those_of_the_library():
    assert ",".join(DEFAULT) == ATTACKS
    assert len(COMMANDS) == len(NAMES)
