"""Freed memory is kept for the next step.

A training step frees hundreds of megabytes of activations at its end. glibc returns this memory to the operating
system, and the next step waits until as much new memory is cleared. A process that trains or certifies is faster if it
keeps the memory (docs/benchmarks.md). The setting applies to the whole process, so the commands set it, and the library
does not.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1  # bytes of free memory above which glibc returns some
LARGEST = 2**30  # the largest block, in bytes, that glibc takes from kept memory


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory; returns whether it does (glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, KEPT))
