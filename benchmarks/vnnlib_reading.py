"""Time and memory of reading a VNN-LIB property of 53 MB: 9,200 boxes of 154 inputs, in one assert.

The form is that of the cardinality properties of database indices in the verification competition: one `or` of boxes,
each with its own bound of the output. Half of the bounds have nine random digits. The file is read in a process of its
own; `seconds` and `CPU` are those of `read_vnnlib`, `peak` is the peak memory of the process, including torch itself.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._memory import peak

Corners = tuple[list[str], list[str]]


def boxes_text(*, boxes: int, inputs: int, seed: int) -> tuple[str, list[Corners]]:
    """A property of boxes, and the numbers of their corners as text."""
    generator = random.Random(seed)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += ["(declare-const Y_0 Real)", "(assert (or"]
    corners = list[Corners]()
    for _ in range(boxes):
        lower = [f"{generator.random():.9f}" if i % 2 else "0.0" for i in range(inputs)]
        upper = [f"{float(low) + 0.001:.9f}" if i % 2 else "1.0" for i, low in enumerate(lower)]
        bounds = (f"(>= X_{i} {low}) (<= X_{i} {high})" for i, (low, high) in enumerate(zip(lower, upper, strict=True)))
        lines.append(f"    (and {' '.join(bounds)} (<= Y_0 {generator.random():.6f}))")
        corners.append((lower, upper))
    return "\n".join([*lines, "))", ""]), corners


def main() -> None:
    print("\nreading a VNN-LIB property of 9,200 boxes of 154 inputs: half a minute")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.vnnlib"
        path.write_text(boxes_text(boxes=9200, inputs=154, seed=0)[0])
        command = [sys.executable, "-m", "benchmarks.vnnlib_reading", str(path)]
        seconds, cpu, memory = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
        print(f"{'MB':>6}{'seconds':>9}{'CPU':>7}{'peak MiB':>10}")
        print(f"{path.stat().st_size / 1e6:6.1f}{seconds:9.1f}{cpu:7.1f}{memory:10.0f}")


def _measure(path: str) -> None:
    from ctbench.vnnlib import read_vnnlib

    start, cpu = time.perf_counter(), time.process_time()
    read_vnnlib(path)
    print(time.perf_counter() - start, time.process_time() - cpu, peak())


if __name__ == "__main__":
    _measure(sys.argv[1])
