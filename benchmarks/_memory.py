"""How much memory a benchmark has taken; read from /proc, so this needs Linux."""

from __future__ import annotations

from pathlib import Path


def peak() -> float:
    """MiB that this process has held at most. What getrusage says would be at least what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10
