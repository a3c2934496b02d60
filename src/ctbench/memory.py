"""Memory that is freed is kept for the next step.

A training step frees hundreds of megabytes of activations at its end. glibc hands them back to the operating system,
and the next step waits for as many to be cleared: an IBP step on cnn7 took 1.7 times as long so (2 cores, November
2026). A process that trains or certifies had better keep them. The setting is the whole process's, so commands make it,
and the library does not.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1  # bytes of free memory above which glibc would give some back
LARGEST = 2**30  # bytes up to which glibc lets a block come from kept memory


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory; returns whether it is one that does (glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, KEPT))
