"""Threads that wait for one another sleep.

The threads of torch's OpenMP spin by default while they wait. On a shared machine, they may occupy the core of the
thread that they wait for. Sleeping costs nothing on an idle machine, and on a busy one it is many times faster for
small networks (docs/benchmarks.md).

OpenMP reads the setting when torch is imported. So `import ctbench` sets it first, unless the environment has a value.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
