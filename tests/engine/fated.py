"""A certification of 40 samples whose fate lies in a folder, and a driver that runs it: python -m tests.engine.fated.

In the folder, a file "slow" holds up every worker in its last stage until it is removed; with "once", the first worker
that comes to sample 20 kills itself. Each worker writes a file with its process number.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ctbench.engine import Ray
from ctbench.networks import MLP
from ctbench.verify import Bound, Falsify, Findings, Problem, Records, Stage, certify


@dataclass(frozen=True, kw_only=True)
class Fate(Stage):
    title = "fate"
    here: str = ""

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        here = Path(self.here)
        (here / f"{os.getpid()}.pid").touch()
        if bool((problem.x == 0.5).all(1).any()) and (here / "once").exists():
            (here / "once").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while (here / "slow").exists():
            time.sleep(0.05)
        return Findings()


def job(here: Path) -> dict[str, Any]:
    """The arguments of `certify`."""
    torch.manual_seed(0)
    model = MLP(hidden=(12, 8)).build((4,), 3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = torch.rand(40, 4)
    x[20] = 0.5
    stages = [Bound(domain="interval"), Fate(here=str(here)), Falsify(), Bound(domain="crown")]
    return {"model": model, "x": x, "y": model(x).argmax(1).detach(), "eps": 0.08, "stages": stages}


def main(address: str, here: Path) -> None:
    """Certify on a cluster; called again, go on."""
    path = here / "records.jsonl"
    certify(**job(here), engine=Ray(address=address), records=Records(path, resume=path.exists()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
