"""What is kept of an error that a stage raised."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Raised:
    """Its text alone: the error itself holds on to all that its frames hold."""

    message: str
    memory: bool  # whether memory did not suffice, and may for fewer samples

    @classmethod
    def of(cls, error: Exception) -> Raised:
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}", _out_of_memory(error))


def _out_of_memory(error: Exception) -> bool:
    """Whether torch had no memory left: on a CPU it says so in words alone."""
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)
