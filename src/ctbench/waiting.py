"""Whether reading the values of a tensor makes Python wait.

Python puts operators into a queue, and an accelerator works through it. `.item()`, `bool(tensor)`, and every result
whose shape depends on values, make Python wait until the queue is empty. Code that reads values only to save work
should do so on the CPU alone:

    if waiting.is_free(mask) and not bool(mask.any()):
        return
"""

from __future__ import annotations

from torch import Tensor


def is_free(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read without waiting for a device."""
    return tensor.device.type == "cpu"
