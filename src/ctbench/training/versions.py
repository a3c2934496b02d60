"""What a result was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def versions(device: torch.device) -> dict[str, str | int | None]:
    return {
        "ctbench": version("ctbench"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit that the library runs from, with "+" for uncommitted changes; None for an installed copy."""
    source = Path(__file__).parent
    try:
        found = subprocess.run(
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
    # an installed copy may lie inside somebody else's repository, whose commit says nothing about ours
    return found.stdout.strip() if ours.returncode == 0 else None
