"""Data sets: plain tensors, read from files with checked content.

    data = MNIST().load()
    data = datasets()["digits"]().load()

To add a data set, write a file in this package with a dataclass that has a `name` and `load`.
"""

from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset, Examples, Images, Vectors, part, stratified_split
from ctbench.datasets.cifar import CIFAR10
from ctbench.datasets.corrupted import Corrupted, corrupt, corrupted
from ctbench.datasets.digits import Digits
from ctbench.datasets.folder import Folder
from ctbench.datasets.given import GivenData
from ctbench.datasets.held_out import HeldOut, Withheld, WithheldError
from ctbench.datasets.mnist import MNIST
from ctbench.datasets.published_corruptions import (
    CIFAR10C,
    MNISTC,
    PublishedCorruption,
    TinyImageNetC,
    published_corruption,
)
from ctbench.datasets.synthetic import Separable, Spheres
from ctbench.datasets.tinyimagenet import TinyImageNet
from ctbench.members import members

__all__ = [
    "CIFAR10",
    "CIFAR10C",
    "MNIST",
    "MNISTC",
    "Augmentation",
    "Corrupted",
    "Data",
    "Dataset",
    "Digits",
    "Examples",
    "Folder",
    "GivenData",
    "HeldOut",
    "Images",
    "PublishedCorruption",
    "Separable",
    "Spheres",
    "TinyImageNet",
    "TinyImageNetC",
    "Vectors",
    "Withheld",
    "WithheldError",
    "corrupt",
    "corrupted",
    "datasets",
    "part",
    "published_corruption",
    "stratified_split",
]


def datasets() -> dict[str, type[Dataset]]:
    """Return all data sets by name: those of this package, and all other subclasses of `Dataset` defined so far."""
    return members(Dataset)
