"""Digits: 1,797 handwritten digits of 8 x 8 pixels, grey, included in the package.

The test part of Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
Repository, 1998, in the version of scikit-learn. Nothing is downloaded, and a small network learns it in seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ctbench.datasets.base import Data, Dataset, Images

DIGITS = Path(__file__).with_name("digits.npz")  # pixels [1797, 8, 8] from 0 to 16, labels [1797]


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """Handwritten digits from 0 to 9: 1,438 for training and 359 for test, not normalised.

    In the order of the file, the third of every five digits of a class is for test.
    """

    name: ClassVar[str] = "digits"

    def load(self, root: Path | None = None) -> Data:
        """Read the included digits; `root` is not used."""
        with np.load(DIGITS, allow_pickle=False) as file:
            pixels, labels = torch.from_numpy(file["pixels"]), torch.from_numpy(file["labels"])
        everything = Images(pixels.unsqueeze(1) / 16, labels.long())
        test = torch.zeros(len(everything), dtype=torch.bool)
        for digit in range(10):
            test[(everything.labels == digit).nonzero().flatten()[2::5]] = True
        data = Data(
            train=everything.subset(~test),
            test=everything.subset(test),
            class_names=tuple("0123456789"),
        )
        return self.cut(data)
