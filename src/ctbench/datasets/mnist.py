"""MNIST: handwritten digits, 60,000 for training and 10,000 for test, 28 x 28 pixels, grey.

LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proceedings of
the IEEE, 1998.

The four IDX files may be compressed or not, by any program: the checksum is that of the unpacked content.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ctbench.datasets import files, idx
from ctbench.datasets.base import Data, Dataset, Images

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)

UNPACKED_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

DOWNLOAD_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@dataclass(frozen=True, kw_only=True)
class MNIST(Dataset):
    """Handwritten digits from 0 to 9, without augmentation."""

    name: ClassVar[str] = "mnist"

    def load(self, root: Path | None = None) -> Data:
        """Read the four files, and download missing ones."""
        data = Data(
            train=_images(root, "train"),
            test=_images(root, "t10k"),
            class_names=tuple("0123456789"),
            mean=(0.1307,),
            std=(0.3081,),
        )
        return self.cut(data)


def _images(root: Path | None, part: str) -> Images:
    pixels = _array(root, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = _array(root, f"{part}-labels-idx1-ubyte", dimensions=1)
    return Images(pixels.unsqueeze(1), labels.long())


def _array(root: Path | None, name: str, *, dimensions: int) -> torch.Tensor:
    packed = files.Remote(name=f"{name}.gz", sha256=DOWNLOAD_SHA256[name], mirrors=MIRRORS)
    path = files.locate(root, MNIST.name, (name, packed.name), packed)
    content = idx.read_unpacked(path)
    array = idx.parse(content, path, dimensions=dimensions)
    files.check_sha256(path, UNPACKED_SHA256[name], content=content)
    return torch.from_numpy(array.copy())
