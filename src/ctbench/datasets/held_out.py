"""A data set without its test images: a part of the training images is held out in their place.

    data = HeldOut(base=MNIST(), share=0.1).load()      # data.test raises WithheldError
    images = HeldOut(base=MNIST(), share=0.1).validation()

Whoever trains and compares networks on it cannot choose by test accuracy: the test images are not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NoReturn, Self

import torch

from ctbench.datasets.base import Data, Examples, Index, stratified_split
from ctbench.datasets.derived import Derived


class WithheldError(ValueError):
    """Something read test images that are withheld."""


@dataclass(frozen=True, eq=False)
class Withheld(Examples):
    """In place of test images: the shape of an input, and nothing to read."""

    def _check_inputs(self) -> None:
        assert not len(self.inputs), "withheld examples hold no inputs"

    @classmethod
    def like(cls, examples: Examples) -> Self:
        """Nothing, in the shape of some examples."""
        return cls(examples.inputs.new_empty((0, *examples.inputs.shape[1:])), examples.labels.new_empty(0))

    def __len__(self) -> int:
        _refuse()

    def batch(self, index: Index, device: torch.device) -> NoReturn:
        _refuse()

    def subset(self, index: Index) -> NoReturn:
        _refuse()

    def to(self, device: torch.device | str) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise WithheldError(
        "the test images are withheld: this network belongs to a study, which compares networks on validation images "
        "only; the final runs of the study are for tests"
    )


@dataclass(frozen=True, kw_only=True)
class HeldOut(Derived):
    """A data set with `Withheld` test images, and a part of its training images held out.

    Args:
        base: the data set.
        share: the share of the training images that is held out, in (0, 1).
        seed: of the choice of these images.

    Raises:
        ValueError: an augmentation other than that of the base is given.
    """

    name: ClassVar[str] = "held-out"
    record_only: ClassVar[bool] = True
    share: float
    seed: int = 0

    @property
    def title(self) -> str:
        return f"{self.base.title}-validation"

    def load(self, root: Path | None = None) -> Data:
        """The training images that are not held out. Raises the errors of the base and of `stratified_split`."""
        data = self.base.load(root)
        training, _ = stratified_split(data.train, fraction=self.share, seed=self.seed)
        return replace(data, train=training, test=Withheld.like(data.test))

    def validation(self, root: Path | None = None) -> Examples:
        """The images that are held out, as a network gets them at test time."""
        _, held_out = stratified_split(self.base.load(root).train, fraction=self.share, seed=self.seed)
        return replace(held_out, inputs=self.augmentation.center(held_out.inputs))
