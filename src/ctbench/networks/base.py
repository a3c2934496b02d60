"""The base class of architectures: a frozen record that builds a plain torch network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args, get_type_hints

from torch import nn

from ctbench.networks.normalize import Normalize


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """What decides a network, except what depends on the data.

    A subclass is a frozen dataclass, and it has to define only `layers`. Its fields are sizes (`int` or
    `tuple[int, ...]`), or anything else that a recipe can hold: strings, bools, floats and tuples of them, e.g.
    `activation: str = "relu"`. Recipes and the command line use its `name`.

    Raises:
        ValueError: a size is not a whole number, or is below 1; or a field holds what a recipe cannot hold.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if _is_size(hints[field.name]):
                for size in value if isinstance(value, tuple) else (value,):
                    if not isinstance(size, int) or (size < 1 and not isinstance(size, bool)):
                        raise ValueError(
                            f"{self.name}: {field.name} is {value!r}, which is not a size; "
                            "give a whole number of 1 or more, or a tuple of them"
                        )
            elif not _is_plain(value):
                raise ValueError(
                    f"{self.name}: {field.name} is {value!r}, which cannot stand in a recipe; "
                    "give a finite number, a string, True, False, None, or a tuple of them"
                )

    @abstractmethod
    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """The layers in order, from inputs of `input_shape` (without the batch) to logits [B, classes]."""

    def build(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> nn.Sequential:
        """A new network with torch's own initialisation, from [B, *input_shape] to logits [B, classes].

        Args:
            input_shape: the shape of one input: [C, H, W] for images.
            classes: the number of logits.
            mean: per channel, in units of the pixels; with `std`, the network begins with `Normalize`.
            std: per channel, in units of the pixels.

        Raises:
            ValueError: there is no network for the shape, the number of classes or the normalisation.
        """
        if not input_shape or min(input_shape) < 1:
            raise ValueError(f"{self.name}: an input of shape {input_shape} is empty; give sizes of 1 or more")
        if classes < 1:
            raise ValueError(f"{self.name}: cannot tell {classes} classes apart; give 1 or more")
        layers = self.layers(input_shape, classes)
        if mean is None and std is None:
            return nn.Sequential(*layers)
        if mean is None or std is None:
            raise ValueError("normalisation needs both mean and std, and one of them is None; give both or neither")
        if len(mean) != input_shape[0]:
            raise ValueError(
                f"mean and std have {len(mean)} values for an input of shape {input_shape}; "
                f"give one per channel, {input_shape[0]}"
            )
        return nn.Sequential(Normalize(mean, std, spatial=len(input_shape) - 1), *layers)


def _is_size(hint: Any) -> bool:
    """Whether a field holds whole numbers alone."""
    return int in _leaves(hint) <= {int, ...}


def _leaves(hint: Any) -> set[Any]:
    """The plain types in the type of a field."""
    inner = get_args(hint)
    return set().union(*map(_leaves, inner)) if inner else {hint}


def _is_plain(value: Any) -> bool:
    """Whether a recipe can hold a value."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
