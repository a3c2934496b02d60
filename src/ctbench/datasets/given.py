"""Data of your own in the record of a run: a digest, by which they are recognised when they are given again.

ctbench.train(recipe, data=Data.of(train=(x, y), test=(x_test, y_test)))
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset


@dataclass(frozen=True, kw_only=True)
class GivenData(Dataset):
    """Data that were given to `ctbench.train` in memory.

    Args:
        digest: of the training and the test data, the names of the classes, and the normalisation.
    """

    name: ClassVar[str] = "given"
    record_only: ClassVar[bool] = True
    digest: str

    @classmethod
    def of(cls, data: Data, augmentation: Augmentation) -> Self:
        """The record of some data."""
        return cls(digest=_digest(data), augmentation=augmentation)

    def recognized(self, data: Data) -> Data:
        """The data with test images as `load` would cut them. Raises ValueError if they are not the data of before."""
        if _digest(data) != self.digest:
            raise ValueError(
                f"these are not the data of the run (their digest is {_digest(data)}, that of the run {self.digest}): "
                f"give the same data, in the same order"
            )
        return self.cut(data)

    def load(self, root: Path | None = None) -> Data:
        """Raises ValueError: no file holds the data."""
        raise ValueError(
            "the data of this run were given in memory and are not stored: give them again, "
            "ctbench.load_run(folder, data=...) in Python or --data-from MODULE:FUNCTION"
        )


def _digest(data: Data) -> str:
    digest = hashlib.sha256(repr((data.class_names, data.mean, data.std)).encode())
    for part in (data.train, data.test):
        for tensor in (part.inputs, part.labels):
            digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
