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
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_")]
    arguments = sys.argv[1:]
    end = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    chosen, options = arguments[:end] or names, arguments[end:]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    if options and chosen != ["device"]:
        print(f"got {' '.join(arguments)}, but only device takes options: run it alone", file=sys.stderr)
        return 2
    keep_freed_memory()  # like the commands of ctbench
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for name in chosen:
        run = importlib.import_module(f"benchmarks.{name}").main
        if run(*([options] if options else [])):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
