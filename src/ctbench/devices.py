"""Devices to compute on."""

from __future__ import annotations

import torch

LONGEST = 100  # characters of what torch says


def available(device: str | torch.device) -> torch.device:
    """A device on which torch can compute here.

    Raises:
        ValueError: there is none of this name, or torch was built without it.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        said = f"{reason[:LONGEST]} [...]" if len(reason) > LONGEST else reason
        raise ValueError(f"there is no device {str(device)!r} to compute on: {_choices()} ({said})") from None
    if found.type == "meta":
        raise ValueError(f"tensors on the device 'meta' have no values to compute with: {_choices()}")
    return found


def _choices() -> str:
    """What may be named instead."""
    if not torch.accelerator.is_available():
        return "torch has only 'cpu' here"
    name, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
    return f"torch has 'cpu' and {', '.join(repr(f'{name}:{number}') for number in range(count))} here"
