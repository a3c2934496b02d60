"""OpenMP gets its setting before torch is imported."""

import os
import subprocess
import sys

import pytest

WATCHED = """
import os, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
import ctbench
ctbench.certify
"""


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_unless_the_environment_says_otherwise(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    command = [sys.executable, "-c", WATCHED]
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert process.stdout == f"{found}\n"
