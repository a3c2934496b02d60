"""TinyImageNet: photographs of 200 kinds of things, 100,000 for training, 10,000 for test, 64 x 64 pixels.

Le & Yang, "Tiny ImageNet visual recognition challenge", Stanford CS231N, 2015.

Its test images were published without labels. As usual in certified training, the validation images are the test set.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ctbench.datasets import files
from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset, Images
from ctbench.datasets.entries import entries
from ctbench.datasets.pictures import decode_image, stack

FOLDER = "tiny-imagenet-200"
TRAIN_IMAGES = 500  # per class
ARCHIVE = files.Remote(
    name="tiny-imagenet-200.zip",
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    mirrors=("http://cs231n.stanford.edu", "https://cs231n.stanford.edu"),
)


@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Dataset):
    """200 kinds of things in colour, named by their WordNet identifiers and numbered in their order.

    Training images are flipped, and shifted by up to 4 pixels. Pixels stay bytes: 1.3 GB in memory.
    """

    name: ClassVar[str] = "tinyimagenet"
    augmentation: Augmentation = field(default=Augmentation(flip=True, crop_padding=4))

    def load(self, root: Path | None = None) -> Data:
        """Read the folder or the zip, and download the zip if both are missing."""
        path = files.locate(root, self.name, (FOLDER, ARCHIVE.name), ARCHIVE)
        if path.name == ARCHIVE.name:
            files.check_sha256(path, ARCHIVE.sha256)
        pictures: dict[str, NDArray[np.uint8]] = {}
        texts: dict[str, str] = {}
        for name, content in entries(path, lambda name: bool(_place(name))):
            if name.suffix == ".txt":
                texts[_place(name)] = content.decode()
            else:
                pictures[_place(name)] = decode_image(content, f"{path}/{name}")
        return self.cut(_assemble(path, pictures, texts))


CROPPED = Augmentation(flip=True, crop=56)  # in the papers of SABR, of TAPS, and of De Bartolomeis et al. 2023


def _place(name: PurePosixPath) -> str:
    """The path of a file within the data set, independent of the outer folder; "" if the file is not needed."""
    match name.parts:
        case [*_, "wnids.txt"]:
            return "wnids.txt"
        case [*_, "val", "val_annotations.txt"]:
            return "val_annotations.txt"
        case [*_, "val", "images", image] if image.endswith(".JPEG"):
            return f"val/{image}"
        case [*_, "train", wnid, "images", image] if image.endswith(".JPEG"):
            return f"train/{wnid}/{image}"
    return ""


def _assemble(path: Path, pictures: Mapping[str, NDArray[np.uint8]], texts: Mapping[str, str]) -> Data:
    """Combine images and labels, and check that all are there."""
    for text in ("wnids.txt", "val_annotations.txt"):
        if not texts.get(text):
            raise FileNotFoundError(f"{path} has no {text}, or an empty one; get the whole data set")
    wnids = tuple(sorted(texts["wnids.txt"].split()))
    train = {place: place.split("/")[1] for place in sorted(pictures) if place.startswith("train/")}
    counts = Counter(train.values())
    for wnid in (*wnids, *counts):
        if counts[wnid] != (TRAIN_IMAGES if wnid in wnids else 0):
            raise ValueError(
                f"{path} has {counts[wnid]} training images of {wnid}, but {TRAIN_IMAGES} of each class that "
                "wnids.txt lists are expected; get the whole data set"
            )
    annotations = [line.split("\t") for line in texts["val_annotations.txt"].splitlines()]
    test = {f"val/{fields[0]}": fields[1] for fields in annotations if fields[1:2] and fields[1] in wnids}
    images = {place for place in pictures if place.startswith("val/")}
    if len(test) != len(annotations) or images != set(test):
        raise ValueError(
            f"{path} has {len(images)} images in val/images and {len(annotations)} lines in "
            f"val_annotations.txt, but {len(images & set(test))} of them match; get the whole data set"
        )

    def part(truth: Mapping[str, str]) -> Images:
        labels = [wnids.index(wnid) for wnid in truth.values()]
        return Images(stack({place: pictures[place] for place in truth}), torch.tensor(labels))

    return Data(
        train=part(train),
        test=part(test),
        class_names=wnids,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
    )
