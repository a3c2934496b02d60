"""Digits: 1,797 handwritten digits of 8 x 8 pixels, grey, which come with scikit-learn.

The test part of Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
Repository, 1998. Nothing has to be downloaded, and a small network learns it in seconds.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ctbench.datasets.base import Data, Dataset, Images


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """Handwritten digits from 0 to 9: 1,438 for training and 359 for test, not normalised.

    Of every five digits of a class, in the order of the file, the third is for test.
    """

    name: ClassVar[str] = "digits"

    def load(self, root: Path | None = None) -> Data:
        """Take the digits out of scikit-learn; `root` is not used.

        Raises:
            ModuleNotFoundError: scikit-learn is not installed.
        """
        try:
            source = importlib.import_module("sklearn.datasets")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the digits come with scikit-learn, which is not installed: run pip install scikit-learn"
            ) from error
        bunch = source.load_digits()
        everything = Images(
            torch.from_numpy(bunch.images / 16).float().unsqueeze(1),
            torch.from_numpy(bunch.target).long(),
        )
        test = torch.zeros(len(everything), dtype=torch.bool)
        for digit in range(10):
            test[(everything.labels == digit).nonzero().flatten()[2::5]] = True
        return Data(
            train=everything.subset(~test),
            test=everything.subset(test),
            class_names=tuple("0123456789"),
        )
