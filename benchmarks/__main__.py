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
    chosen = sys.argv[1:] or known
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    keep_freed_memory()  # as the commands do
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for name in chosen:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
