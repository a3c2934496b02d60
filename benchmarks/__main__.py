"""`python -m benchmarks [NAME ...]`: run all benchmarks, or some."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys

import torch

import benchmarks
from ctbench.memory import keep_freed_memory


def main() -> int:
    known = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_")]
    given = sys.argv[1:]
    end = next((at for at, word in enumerate(given) if word.startswith("-")), len(given))
    chosen, options = given[:end] or known, given[end:]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if options and chosen != ["device"]:
        print(f"only device takes options, and is then run alone, but {' '.join(given)} was given", file=sys.stderr)
        return 2
    keep_freed_memory()  # as the commands do
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for name in chosen:
        run = importlib.import_module(f"benchmarks.{name}").main
        if run(*([options] if options else [])):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
