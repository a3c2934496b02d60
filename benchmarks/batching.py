"""Certification of a thousand images as one job, against the same ones one by one, by both cascades.

The network is a run folder, as CTBENCH_RUN names it: of SABR or MTL-IBP on MNIST, as runs/mnist_small/mnist_small_sabr.
CTBENCH_DATA names the folder of the data.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ctbench.results import Verdict
from ctbench.training import load_run
from ctbench.verify import CASCADES, certify

SAMPLES = 1000
TIMEOUT = 20.0  # seconds for each image


def main() -> None:
    folder, data = os.environ.get("CTBENCH_RUN"), os.environ.get("CTBENCH_DATA")
    if folder is None or data is None:
        print("\nbatching: not run, CTBENCH_RUN names no run folder or CTBENCH_DATA no data")
        return
    loaded = load_run(Path(folder))
    recipe, model = loaded.recipe, loaded.model
    x, y = recipe.dataset.load(Path(data)).test[:SAMPLES]
    print(f"\n{recipe.name}, {len(x)} images, eps {recipe.threat.eps}")
    print(f"{'cascade':10}{'one job, s':>12}{'one by one, s':>15}{'ratio':>7}{'other verdicts':>16}{'unknown':>9}")
    for name, stages in CASCADES.items():

        def verdicts(chosen: slice) -> list[Verdict]:
            found = certify(model, x[chosen], y[chosen], eps=recipe.threat.eps, stages=stages, timeout=TIMEOUT)  # noqa: B023
            return [record.verdict for record in found]

        start = time.perf_counter()
        together = verdicts(slice(None))
        middle = time.perf_counter()
        single = [verdict for i in range(len(x)) for verdict in verdicts(slice(i, i + 1))]
        times = middle - start, time.perf_counter() - middle
        other = sum(one != all_ for one, all_ in zip(single, together, strict=True))
        open_ = together.count(Verdict.UNKNOWN)
        print(f"{name:10}{times[0]:12.1f}{times[1]:15.1f}{times[1] / times[0]:7.1f}{other:16}{open_:9}", flush=True)
