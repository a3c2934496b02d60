"""CIFAR-10: photographs of ten kinds of things, 50,000 for training and 10,000 for test, 32 x 32 pixels.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

It is published in two forms. A *binary* batch is a sequence of records of 1 label and 3,072 pixels. A *python*
batch is a pickle. Loading a pickle can run any program, so it is never loaded: only its instructions are read, and
these contain the labels and pixels.
"""

import pickletools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ctbench.datasets import files
from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset, Images
from ctbench.datasets.entries import entries

Batch = tuple[NDArray[np.uint8], list[int]]  # pixels [RECORDS, 3, 32, 32] and labels

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDS = 10_000  # per batch
PIXELS = 3 * 32 * 32
INTEGERS = {
    "BININT",
    "BININT1",
    "BININT2",
    "INT",
    "LONG",
    "LONG1",
}  # instructions of a pickle that push a number

BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
BINARY = files.Remote(
    name="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    mirrors=MIRRORS,
)
PYTHON = files.Remote(
    name="cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    mirrors=MIRRORS,
)


@dataclass(frozen=True, kw_only=True)
class CIFAR10(Dataset):
    """Ten kinds of things in colour; training images are flipped, and shifted by up to 2 pixels."""

    name: ClassVar[str] = "cifar10"
    augmentation: Augmentation = field(default=Augmentation(flip=True, crop_padding=2))

    def load(self, root: Path | None = None) -> Data:
        """Read either form, from its folder or an archive. Download the binary form if both are missing."""
        path = files.locate(root, self.name, (BINARY_FOLDER, PYTHON_FOLDER, BINARY.name, PYTHON.name), BINARY)
        for remote in (BINARY, PYTHON):
            if path.name == remote.name:
                files.check_sha256(path, remote.sha256)
        binary = path.name in (BINARY_FOLDER, BINARY.name)
        parse, suffix = (binary_batch, ".bin") if binary else (python_batch, "")
        train = [f"data_batch_{number}{suffix}" for number in range(1, 6)]
        test = [f"test_batch{suffix}"]
        contents = {file.name: content for file, content in entries(path, lambda file: file.name in train + test)}
        missing = [name for name in train + test if name not in contents]
        if missing:
            raise FileNotFoundError(f"{path} lacks {', '.join(missing)}; get all six batches")
        batches = {name: parse(content, f"{path}/{name}") for name, content in contents.items()}
        data = Data(
            train=_images(batches[name] for name in train),
            test=_images(batches[name] for name in test),
            class_names=CLASSES,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        )
        return self.cut(data)


def binary_batch(content: bytes, name: str) -> Batch:
    """Read a batch of the binary form.

    Raises:
        ValueError: the length is not that of a batch.
    """
    if len(content) != RECORDS * (1 + PIXELS):
        raise ValueError(
            f"{name} has {len(content)} bytes, but a batch has {RECORDS * (1 + PIXELS)}; get the file again"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(RECORDS, 1 + PIXELS)
    return records[:, 1:].reshape(RECORDS, 3, 32, 32), records[:, 0].tolist()


def python_batch(content: bytes, name: str) -> Batch:
    """Read a batch of the python form without loading the pickle.

    The pickle holds a dictionary, so each key is a string before its value. The labels are the numbers between the
    string "labels" and the next string. The pixels are the first string after "data" that has their length: the
    strings before it are names that numpy needs to construct the array.

    Raises:
        ValueError: it is not a pickle, or does not contain the labels and pixels of a batch.
    """
    labels: list[int] = []
    pixels: bytes | None = None
    text, in_data = b"", False
    try:
        for instruction, value, _ in pickletools.genops(content):
            if instruction.name in INTEGERS and isinstance(value, int) and text == b"labels":
                labels.append(value)
            elif isinstance(value, str | bytes | bytearray):
                text = value.encode("latin-1", "replace") if isinstance(value, str) else bytes(value)
                in_data = in_data or text == b"data"
                if in_data and pixels is None and len(text) == RECORDS * PIXELS:
                    pixels = text
    except ValueError as error:
        raise ValueError(f"{name} is not a complete pickle ({error}); get the file again") from error
    if pixels is None or len(labels) != RECORDS:
        raise ValueError(
            f"{name} has {len(labels)} labels and {0 if pixels is None else len(pixels)} bytes of pixels, "
            f"but a batch has {RECORDS} and {RECORDS * PIXELS}; get the file again"
        )
    return np.frombuffer(pixels, dtype=np.uint8).reshape(RECORDS, 3, 32, 32), labels


def _images(batches: Iterable[Batch]) -> Images:
    pixels, labels = zip(*batches, strict=True)
    return Images(torch.from_numpy(np.concatenate(pixels)), torch.tensor(labels).flatten())
