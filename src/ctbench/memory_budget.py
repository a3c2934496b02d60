"""How much memory a computation may take at once, and what is done if that was too much.

memory_budget.of(device)                    # bytes: 256 MiB on a CPU, elsewhere a share of what the device has free
memory_budget.scale(device)                 # how much larger than on a CPU: for sizes that were chosen there
memory_budget.halving(bounds, count, size)  # parts of a batch, halved where the device runs out of memory
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

DEFAULT = 2**28  # bytes: on a CPU, whose memory others share and the operating system stretches
SHARE = 1 / 8  # of a device's free memory: less than half of what is held is counted, and half of it stays spare

T = TypeVar("T")


def of(device: torch.device, share: float = SHARE) -> int:
    """Bytes that a computation on a device may take at once: on a CPU, or where the device does not say what it has
    free, 256 MiB, and else a share of that."""
    free = free_memory(device)
    return DEFAULT if free is None else max(1, int(share * free))


def scale(device: torch.device, share: float = SHARE) -> float:
    """The budget as a multiple of that on a CPU."""
    return of(device, share) / DEFAULT


def grown(number: int, device: torch.device, share: float = SHARE) -> int:
    """A number of things that fit a CPU's budget, grown with that of a device; at least 1."""
    return max(1, int(number * scale(device, share)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch had no memory left: on a CPU it says so in words alone."""
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def halving(compute: Callable[[int, int], T], count: int, size: int) -> list[T]:
    """What `compute` makes of [0, count) in parts from start to stop, none larger than `size`; a part that there is no
    memory for is halved, and so are those behind it.

    Raises:
        torch.OutOfMemoryError: there is no memory for one thing, either; on a CPU also RuntimeError or MemoryError.
    """
    found, start = list[T](), 0
    while start < count:
        stop = min(count, start + size)
        part = attempt(lambda start=start, stop=stop: compute(start, stop), last=stop - start == 1)  # type: ignore[misc]
        if part is None:
            size = (stop - start + 1) // 2
        else:
            found.append(part)
            start = stop
    return found


def attempt(compute: Callable[[], T], *, last: bool = False) -> T | None:
    """What is computed; None where memory did not suffice, unless this was the last attempt.

    The error is gone when this returns, and with it all that its frames hold.
    """
    try:
        return compute()
    except Exception as error:
        if last or not is_out_of_memory(error):
            raise
    return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device has free, with those that torch keeps there for later; None for a CPU, and where the device
    does not say."""
    if device.type in ("cpu", "meta"):
        return None
    module = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return None
    free: int = module.mem_get_info(device)[0]
    if hasattr(module, "memory_reserved") and hasattr(module, "memory_allocated"):
        free += module.memory_reserved(device) - module.memory_allocated(device)
    return free
