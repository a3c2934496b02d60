"""Claims: what a run or a pack says about itself, each with what a check of it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SHOWN = 400  # letters of a message


@dataclass(frozen=True)
class Claim:
    """A claim that holds, or does not."""

    about: str  # the file
    holds: bool
    said: str  # what was found

    def __str__(self) -> str:
        """One line."""
        said = " ".join(self.said.split())
        shown = said if len(said) <= SHOWN else f"{said[:SHOWN]} ..."
        return f"{'ok    ' if self.holds else 'FAILED'}  {self.about}: {shown}"


class ClaimError(ValueError):
    """A claim does not hold; the message says why."""


def claim(about: str, look: Callable[[], str]) -> Claim:
    """What a check says. An error of any kind is a claim that does not hold: a file may hold anything.

    Args:
        about: the file.
        look: returns what was found, and raises if the claim does not hold.
    """
    try:
        return Claim(about, True, look())
    except (ValueError, OSError) as error:
        return Claim(about, False, str(error))
    except Exception as error:  # e.g. of torch, about weights that do not fit: the line says it, and the status is 1
        return Claim(about, False, f"the check failed ({type(error).__name__}: {error})")
