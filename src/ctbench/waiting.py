"""Whether a look at a tensor's values makes Python wait.

An accelerator works behind Python, which queues one operator after the other. `.item()`, `bool(tensor)`, and every
result whose shape depends on values, make Python wait until the queue is empty. Where such a look only saves work, it
is worth it on the CPU alone:

    if waiting.is_free(mask) and not bool(mask.any()):
        return
"""

from __future__ import annotations

from torch import Tensor


def is_free(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"
