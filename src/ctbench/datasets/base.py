"""What every data set is: images held as tensors, and how they are divided.

data = MNIST().load()
train, validation = split(data.train, fraction=0.1, seed=0)
x, y = train[torch.arange(128)]
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.datasets.augmentation import Augmentation

Index = Tensor | slice | list[int]  # no tuple: torch would take it for one number per dimension


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory.

    Raises:
        ValueError: there are no images, the shapes disagree, or the pixels are neither bytes nor in [0, 1].
    """

    pixels: Tensor  # [N, C, H, W], uint8 from 0 to 255 or floating point in [0, 1]
    labels: Tensor  # [N], int64

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.dim() != 4 or not pixels.numel():
            raise ValueError(f"images have shape {list(pixels.shape)}; expected [N, C, H, W], none of them 0")
        if labels.shape != pixels.shape[:1]:
            raise ValueError(
                f"{len(pixels)} images have labels of shape {list(labels.shape)}; "
                f"give one label per image, [{len(pixels)}]"
            )
        if labels.dtype != torch.int64:
            raise ValueError(f"labels are {labels.dtype}; convert them to torch.int64")
        if pixels.is_floating_point():
            low, high = pixels.aminmax()
            if not (low >= 0 and high <= 1):
                raise ValueError(f"pixels lie in [{low:.4g}, {high:.4g}]; scale them to [0, 1]")
        elif pixels.dtype != torch.uint8:
            raise ValueError(f"pixels are {pixels.dtype}; give torch.uint8, or floating point in [0, 1]")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor]:
        """Images and labels of one batch: x [B, C, H, W] float32 in [0, 1], and y [B]."""
        x = self.pixels[index].to(torch.float32)
        return (x if self.pixels.is_floating_point() else x / 255), self.labels[index]

    def subset(self, index: Index) -> "Images":
        """The images at `index`, as they are stored."""
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory.

    Raises:
        ValueError: a label names no class, or training and test images, or the normalisation, do not agree.
    """

    train: Images
    test: Images
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None  # per channel, of pixels in [0, 1]; None: the network gets none
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for part, images in (("training", self.train), ("test", self.test)):
            bad = ((images.labels < 0) | (images.labels >= self.classes)).nonzero()
            if len(bad):
                first = int(bad[0])
                raise ValueError(
                    f"label {int(images.labels[first])} of {part} image {first} names no class; "
                    f"labels of {self.classes} classes run from 0 to {self.classes - 1}"
                )
        if self.test.pixels.shape[1:] != self.input_shape:
            raise ValueError(
                f"training images have shape {self.input_shape} and test images "
                f"{tuple(self.test.pixels.shape[1:])}; bring them to one shape"
            )
        lengths = {None if values is None else len(values) for values in (self.mean, self.std)}
        if lengths not in ({None}, {self.input_shape[0]}):
            raise ValueError(
                f"mean is {self.mean} and std is {self.std} for images of {self.input_shape[0]} channels; "
                "give one value per channel each, or None for both"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image, (C, H, W)."""
        return tuple(self.train.pixels.shape[1:])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def split(images: Images, *, fraction: float, seed: int) -> tuple[Images, Images]:
    """Hold out a validation set: (training images, validation images), each in the order of `images`.

    Every class gives the same share, rounded to whole images. The choice depends on the labels and the seed
    alone, not on the device.

    Args:
        images: the images to divide.
        fraction: the share that goes to the validation set, between 0 and 1.
        seed: of the choice.

    Raises:
        ValueError: the fraction is not between 0 and 1, or one part would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; give a share between 0 and 1, such as 0.1")
    labels = images.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        count = int(fraction * len(members) + 0.5)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if held_out.all() or not held_out.any():
        raise ValueError(
            f"a fraction of {fraction} of {len(images)} images leaves one part empty; use more images, "
            "or a fraction that is worth at least half an image of some class"
        )
    held_out = held_out.to(images.labels.device)
    return images.subset(~held_out), images.subset(held_out)


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """Where data come from and how they are augmented; `load` is all a member has to write.

    Its `name` is the one used in recipes and on the command line.
    """

    name: ClassVar[str]
    augmentation: Augmentation = field(default=Augmentation())

    @abstractmethod
    def load(self, root: Path | None = None) -> Data:
        """Read the data set, and download it first where that is needed and known how.

        Args:
            root: the folder with the files; None: the environment variable CTBENCH_DATA, or else the
                user's cache.

        Raises:
            FileNotFoundError: the files are not there and cannot be had.
            ValueError: a file is not what it should be.
        """
