"""The peak memory of a benchmark. It is read from /proc, so this needs Linux."""

from __future__ import annotations

from pathlib import Path


def peak() -> float:
    """The peak memory of this process in MiB. getrusage would also count the memory of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10
