"""`python -m tests.oracle_run --instances 20000`: verdicts on networks whose least margins are known exactly.

Prints how many samples each stage and cascade decided, by family and by stage, and every wrong verdict with what makes
its instance again: `instances(family, seed, samples)`. "Bound above" counts bounds above the exact least margin. The
exit status is 1 if a verdict is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from itertools import count, cycle, islice

import torch
from tests.instances import BOUNDS, FAMILIES, SEARCHES, STAGES, Instances, instances

from ctbench.results import Verdict

Counts = dict[tuple[str, str], Counter[str]]  # by family and stage


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle_run", description=__doc__)
    parser.add_argument("--instances", type=int, default=20_000, help="samples, each with an exact least margin")
    parser.add_argument("--samples", type=int, default=16, help="of them for each network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="one of them alone; may be repeated")
    parser.add_argument("--stage", action="append", choices=STAGES, help="one of them alone; may be repeated")
    parser.add_argument("--searches", type=int, default=2, help="of each network, by turns; bounds look at all of them")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts: Counts = {}
    reasons: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    done, families, searches = 0, cycle(options.family or FAMILIES), cycle(SEARCHES)
    for seed in count(options.seed * 1_000_000):
        if done >= options.instances:
            break
        family = next(families)
        begin = time.process_time()
        cases = instances(family, seed, options.samples)
        assert len(cases.least) == len(cases)  # so that the oracle's time is its own
        seconds["the oracle"] += time.process_time() - begin
        for stage in options.stage or [*BOUNDS, *islice(searches, options.searches)]:
            begin = time.process_time()
            faults = _judged(cases, stage, counts.setdefault((family, stage), Counter()), reasons)
            seconds[stage] += time.process_time() - begin
            for place, fault in faults:
                print(f"WRONG: {family!r}, {seed}, sample {place} of {options.samples}, {stage}: {fault}", flush=True)
        done += len(cases)
    for by in (0, 1):
        print(_table(counts, by))
    print(f"\nexact least margins of {done} samples, {sum(seconds.values()):.0f} seconds of a processor:")
    print(", ".join(f"{name} {spent:.0f}" for name, spent in seconds.most_common()))
    for reason, times in reasons.most_common():
        print(f"unknown {times} times: {reason}")
    return 1 if sum(counter["wrong"] for counter in counts.values()) else 0


def _judged(cases: Instances, stage: str, counts: Counter[str], reasons: Counter[str]) -> list[tuple[int, str]]:
    """Count the verdicts of a stage about some samples: the places of the wrong verdicts, and their faults."""
    faults = []
    for place, (record, fault) in enumerate(cases.certified(STAGES[stage])):
        counts[record.verdict] += 1
        counts["wrong"] += bool(fault)
        if record.bound is not None and record.bound > cases.least[place].margin + cases.least[place].doubt:
            counts["bound above"] += 1
        if record.reason:
            reasons[record.reason[:100]] += 1
        if fault:
            faults.append((place, fault))
    return faults


def _table(counts: Counts, by: int) -> str:
    """The counts by family (0) or by stage (1)."""
    columns = [*Verdict, "wrong", "bound above"]
    rows: dict[str, Counter[str]] = {}
    for key, counter in counts.items():
        rows.setdefault(key[by], Counter()).update(counter)
    lines = ["", f"{('family', 'stage')[by]:32}" + "".join(f"{column:>15}" for column in columns)]
    lines += [f"{name:32}" + "".join(f"{counter[column]:15}" for column in columns) for name, counter in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
