"""The software and hardware of a result."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def versions(device: torch.device) -> dict[str, str | int | None]:
    """The versions of the library, of its git commit, torch and Python; the device and the number of threads."""
    return {
        "ctbench": version("ctbench"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit of the running library, with "+" for uncommitted changes; None for an installed copy."""
    source = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
        )
        ours = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=source,
            capture_output=True,
            check=False,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    # an installed copy may lie inside another repository, whose commit is not that of the library
    return described.stdout.strip() if ours.returncode == 0 else None
