"""A thousand images, certified as one job (in one process, and in one process per core) and one by one.

Both cascades are measured. CTBENCH_RUN names the run folder of the network, e.g. runs/mnist_small/mnist_small_sabr, and
CTBENCH_DATA the folder of the data.
"""

from __future__ import annotations

import os
import time
from operator import ne
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
    print(
        f"{'cascade':10}{'processes':>10}{'one job, s':>12}{'one by one, s':>15}{'ratio':>7}{'other':>7}{'unknown':>9}"
    )
    for name, stages in CASCADES.items():

        def timed(parts: list[slice], workers: int = 1) -> tuple[list[Verdict], float]:
            """The verdicts of all images, certified part by part, and the seconds."""
            start = time.perf_counter()
            options = {"threat": recipe.threat, "stages": stages, "timeout": TIMEOUT, "workers": workers}  # noqa: B023
            verdicts = [record.verdict for part in parts for record in certify(model, x[part], y[part], **options)]
            return verdicts, time.perf_counter() - start

        single, slow = timed([slice(i, i + 1) for i in range(len(x))])
        for workers in sorted({1, os.cpu_count() or 1}):
            together, fast = timed([slice(None)], workers)
            other, unknown = sum(map(ne, single, together)), together.count(Verdict.UNKNOWN)
            print(f"{name:10}{workers:10}{fast:12.1f}{slow:15.1f}{slow / fast:7.1f}{other:7}{unknown:9}", flush=True)
