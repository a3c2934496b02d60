"""The part of an error of a stage that is kept."""

from __future__ import annotations

from dataclasses import dataclass

from ctbench import memory_budget


@dataclass(frozen=True)
class Raised:
    """The text of an error. The error itself would keep everything alive that its frames hold."""

    message: str
    memory: bool  # whether there was not enough memory, so that fewer samples may fit

    @classmethod
    def of(cls, error: Exception) -> Raised:
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}", memory_budget.is_out_of_memory(error))
