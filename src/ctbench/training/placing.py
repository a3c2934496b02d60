"""The place of the data of a run: on the device if they fit, so that no batch has to be copied."""

from __future__ import annotations

from typing import TypeVar

import torch

from ctbench import memory_budget
from ctbench.datasets import Examples

E = TypeVar("E", bound=Examples)
SHARE = 1 / 4  # of the free memory of the device, for the examples; the rest is for training


def placed(examples: E, device: torch.device) -> E:
    """The examples, on the device if they fit; otherwise their batches are copied there one by one."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in (examples.inputs, examples.labels))
    free = memory_budget.free_memory(device)
    return examples.to(device) if free is None or size <= SHARE * free else examples
