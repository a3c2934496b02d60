"""How much memory a computation may take at once, and what to do if that is too much.

memory_budget.of(device)                    # bytes: 256 MiB on a CPU, a share of the free memory on other devices
memory_budget.scale(device)                 # a multiple of the budget of a CPU, for sizes that were chosen there
memory_budget.halving(bounds, count, size)  # parts of a batch, halved if the device runs out of memory
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

DEFAULT = 2**28  # bytes, on a CPU: other processes share its memory
SHARE = 1 / 8  # of a device's free memory: a computation holds more than twice what it counts

T = TypeVar("T")


def of(device: torch.device, share: float = SHARE) -> int:
    """Bytes that a computation on a device may take at once: a share of its free memory.

    On a CPU, and on a device that does not tell its free memory, it is 256 MiB.
    """
    free = free_memory(device)
    return DEFAULT if free is None else max(1, int(share * free))


def scale(device: torch.device, share: float = SHARE) -> float:
    """The budget as a multiple of that of a CPU."""
    return of(device, share) / DEFAULT


def grown(number: int, device: torch.device, share: float = SHARE) -> int:
    """A number of items that was chosen for a CPU, scaled to the budget of a device; at least 1."""
    return max(1, int(number * scale(device, share)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory. On a CPU only the message of the error says so."""
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def halving(compute: Callable[[int, int], T], count: int, size: int) -> list[T]:
    """The results of `compute(start, stop)` on consecutive parts of [0, count), of at most `size` items each.

    If there is not enough memory for a part, this part and all later parts are halved.

    Raises:
        torch.OutOfMemoryError: there is not enough memory for a single item; on a CPU also RuntimeError or MemoryError.
    """
    results, start = list[T](), 0
    while start < count:
        stop = min(count, start + size)
        part = attempt(lambda start=start, stop=stop: compute(start, stop), last=stop - start == 1)  # type: ignore[misc]
        if part is None:
            size = (stop - start + 1) // 2
        else:
            results.append(part)
            start = stop
    return results


def attempt(compute: Callable[[], T], *, last: bool = False) -> T | None:
    """The result of `compute`; None if there was not enough memory, unless this was the last attempt.

    When this returns, the error is gone, and so are the tensors that its frames hold.
    """
    try:
        return compute()
    except Exception as error:
        if last or not is_out_of_memory(error):
            raise
    return None


def free_memory(device: torch.device) -> int | None:
    """The free memory of a device in bytes, including the memory that torch keeps for later.

    None for a CPU, and for a device that does not tell.
    """
    if device.type in ("cpu", "meta"):
        return None
    module = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return None
    free: int = module.mem_get_info(device)[0]
    if hasattr(module, "memory_reserved") and hasattr(module, "memory_allocated"):
        free += module.memory_reserved(device) - module.memory_allocated(device)
    return free
