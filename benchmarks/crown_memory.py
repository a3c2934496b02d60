"""Time and peak memory of CROWN with all layers bounded backward: cnn7 on MNIST, linf eps 0.1.

The weights are torch's initial ones, with which most neurons are unstable: the hardest case.
Each row is a process of its own, whose peak is the most memory it ever held, torch itself counted in; `asked` is the
memory that the bounds may take, torch's and the network's not counted in.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

import ctbench
from ctbench.networks import CNN7

ROWS = ((1, 2**28), (1, 2**30), (8, 2**28), (64, 2**28))  # batch, bytes asked for


def main() -> None:
    print("\nCROWN, all layers, cnn7 (13 million weights), MNIST shape, linf eps 0.1: a quarter of an hour")
    print(f"{'batch':>5}{'asked MiB':>11}{'peak MiB':>10}{'before MiB':>12}{'seconds':>9}{'s/sample':>10}")
    for batch, memory in ROWS:
        command = [sys.executable, "-m", "benchmarks.crown_memory", str(batch), str(memory)]
        before, peak, seconds = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
        print(
            f"{batch:5}{memory / 2**20:11.0f}{peak:10.0f}{before:12.0f}{seconds:9.1f}{seconds / batch:10.2f}",
            flush=True,
        )


@torch.no_grad()
def _measure(batch: int, memory: int) -> None:
    ctbench.keep_freed_memory()
    torch.manual_seed(0)
    model = CNN7().build((1, 28, 28), 10, mean=(0.1307,), std=(0.3081,))
    x, y = torch.rand(batch, 1, 28, 28), torch.zeros(batch, dtype=torch.long)
    before, start = _peak(), time.perf_counter()
    ctbench.margin_bounds(model, x, y, eps=0.1, domain="crown", memory=memory)
    print(before, _peak(), time.perf_counter() - start)


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    _measure(*map(int, sys.argv[1:]))
