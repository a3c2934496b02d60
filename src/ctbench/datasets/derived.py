"""Data sets that are made from another one."""

from __future__ import annotations

from dataclasses import dataclass

from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Dataset


@dataclass(frozen=True, kw_only=True)
class Derived(Dataset):
    """A data set that is made from another one, the base, and has its augmentation.

    Raises:
        ValueError: an augmentation other than that of the base is given.
    """

    base: Dataset

    def __post_init__(self) -> None:
        if self.augmentation not in (Augmentation(), self.base.augmentation):
            raise ValueError(f"augmentation is {self.augmentation}: set that of the base, {self.base.name}, instead")
        object.__setattr__(self, "augmentation", self.base.augmentation)
