"""Threads that wait for one another sleep.

Those of torch's OpenMP spin by default, for milliseconds. On a machine that is shared the one that they wait for may
have no core, because they spin on it: beside one busy process, small networks took 4 to 8 times as long to verify on 2
cores, and beside two 50 times (November 2026). Asleep they take as long as on an idle machine, where it costs nothing.

OpenMP reads the setting when torch is imported, so `import ctbench` makes it first, unless the environment has another.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
