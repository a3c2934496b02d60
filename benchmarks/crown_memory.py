"""Time and peak memory of CROWN with all layers bounded backward: cnn7 on MNIST, linf eps 0.1.

The weights are torch's initial ones. With them most neurons are unstable, which is the hardest case. Each row is
measured in a process of its own. `peak` is the peak memory of the process, including torch itself. `before` is the
memory of torch and the network, and `asked` the memory that the bounds may take in addition. The rows with `kept` keep
freed memory, like the commands of ctbench: this is faster, and takes more memory, because free memory is fragmented.
"""

from __future__ import annotations

import subprocess
import sys
import time

import torch

import ctbench
from benchmarks._memory import peak
from ctbench.networks import CNN7

# batch, bytes asked for, whether freed memory is kept
ROWS = ((1, 2**28, False), (1, 2**30, False), (1, 2**28, True), (1, 2**30, True), (8, 2**28, True), (64, 2**28, True))


def main() -> None:
    print("\nCROWN, all layers, cnn7 (13 million weights), MNIST shape, linf eps 0.1: a quarter of an hour")
    print(f"{'batch':>5}{'kept':>6}{'asked MiB':>11}{'peak MiB':>10}{'before MiB':>12}{'seconds':>9}{'s/sample':>10}")
    for batch, memory, kept in ROWS:
        command = [sys.executable, "-m", "benchmarks.crown_memory", str(batch), str(memory), str(int(kept))]
        before, peak, seconds = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
        settings = f"{batch:5}{'yes' if kept else 'no':>6}{memory / 2**20:11.0f}"
        print(f"{settings}{peak:10.0f}{before:12.0f}{seconds:9.1f}{seconds / batch:10.2f}", flush=True)


@torch.no_grad()
def _measure(batch: int, memory: int, kept: int) -> None:
    if kept:
        ctbench.keep_freed_memory()
    torch.manual_seed(0)
    model = CNN7().build((1, 28, 28), 10, mean=(0.1307,), std=(0.3081,))
    x, y = torch.rand(batch, 1, 28, 28), torch.zeros(batch, dtype=torch.long)
    before, start = peak(), time.perf_counter()
    ctbench.margin_bounds(model, x, y, eps=0.1, domain="crown", memory=memory)
    print(before, peak(), time.perf_counter() - start)


if __name__ == "__main__":
    _measure(*map(int, sys.argv[1:]))
