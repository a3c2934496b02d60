"""Published results of a paper, shown next to our own results; the two are never mixed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """The accuracies of a paper's network, in percent; None if the paper does not give the value.

    Args:
        natural, adversarial, certified: the accuracies.
        source: the paper and its table.

    Raises:
        ValueError: an accuracy is not in [0, 100].
    """

    natural: float
    adversarial: float | None = None
    certified: float | None = None
    source: str

    def __post_init__(self) -> None:
        for name in ("natural", "adversarial", "certified"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ValueError(f"{name} is {value}: give percents, from 0 to 100")

    def __str__(self) -> str:
        shown = ["-" if value is None else f"{value:.2f}" for value in (self.natural, self.adversarial, self.certified)]
        return " / ".join(shown)
