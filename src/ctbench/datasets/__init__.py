"""Data sets: plain tensors, read from files with checked content.

    data = MNIST().load()
    data = datasets()["digits"]().load()

To add a data set, write a file in this package with a dataclass that has a `name` and `load`.
"""

import importlib
import inspect
import pkgutil

from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset, Examples, Images, Vectors, split
from ctbench.datasets.cifar import CIFAR10
from ctbench.datasets.digits import Digits
from ctbench.datasets.folder import Folder
from ctbench.datasets.mnist import MNIST
from ctbench.datasets.synthetic import Separable, Spheres
from ctbench.datasets.tinyimagenet import TinyImageNet

__all__ = [
    "CIFAR10",
    "MNIST",
    "Augmentation",
    "Data",
    "Dataset",
    "Digits",
    "Examples",
    "Folder",
    "Images",
    "Separable",
    "Spheres",
    "TinyImageNet",
    "Vectors",
    "datasets",
    "split",
]


def datasets() -> dict[str, type[Dataset]]:
    """Every data set of this package by name. The modules of the package are searched."""
    classes: dict[str, type[Dataset]] = {}
    for module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        for member in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(member) and issubclass(member, Dataset) and not inspect.isabstract(member):
                assert classes.get(member.name, member) is member, f"two data sets are named {member.name}"
                classes[member.name] = member
    return dict(sorted(classes.items()))
