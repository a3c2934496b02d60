"""What is kept of an error that a stage raised."""

from __future__ import annotations

from dataclasses import dataclass

from ctbench import memory_budget


@dataclass(frozen=True)
class Raised:
    """Its text alone: the error itself holds on to all that its frames hold."""

    message: str
    memory: bool  # whether memory did not suffice, and may for fewer samples

    @classmethod
    def of(cls, error: Exception) -> Raised:
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}", memory_budget.is_out_of_memory(error))
