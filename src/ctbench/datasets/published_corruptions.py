"""Published corrupted test sets: MNIST-C, CIFAR-10-C and TinyImageNet-C.

Mu & Gilmer 2019, "MNIST-C: a robustness benchmark for computer vision"; Hendrycks & Dietterich 2019, "Benchmarking
neural network robustness to common corruptions and perturbations".

    MNISTC(corruption="fog").test()                       10,000 images
    CIFAR10C(corruption="fog").test()                     50,000 images: five severities, one after the other
    TinyImageNetC(corruption="fog", severity=3).load()    with the clean training images of TinyImageNet

Archives are checked against their published checksums: the SHA-256 of the first two is recorded by TensorFlow Datasets,
the MD5 of the third by Zenodo. Folders that were unpacked from them are not checked.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ctbench.datasets import files, npy
from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.base import Data, Dataset, Images
from ctbench.datasets.cifar import CIFAR10
from ctbench.datasets.entries import entries
from ctbench.datasets.mnist import MNIST
from ctbench.datasets.pictures import decode_image, stack
from ctbench.datasets.tinyimagenet import TinyImageNet

SEVERITIES = (1, 2, 3, 4, 5)
PER_SEVERITY = 10_000
TINY_CLASSES = 200
MNIST_KINDS = (
    *("brightness", "canny_edges", "dotted_line", "fog", "glass_blur", "identity", "impulse_noise", "motion_blur"),
    *("rotate", "scale", "shear", "shot_noise", "spatter", "stripe", "translate", "zigzag"),
)
TINY_KINDS = (
    *("brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_noise", "glass_blur"),
    *("impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "shot_noise", "snow", "zoom_blur"),
)
CIFAR_KINDS = tuple(sorted((*TINY_KINDS, "gaussian_blur", "saturate", "spatter", "speckle_noise")))


@dataclass(frozen=True, kw_only=True)
class PublishedCorruption(Dataset):
    """A clean data set whose test images are replaced by published corrupted ones.

    Args:
        corruption: the kind.

    Raises:
        ValueError: there is no such kind.
    """

    kinds: ClassVar[tuple[str, ...]]
    clean: ClassVar[type[Dataset]]
    remote: ClassVar[files.Remote]
    folder: ClassVar[str]  # in the archive
    corruption: str

    def __post_init__(self) -> None:
        if self.corruption not in self.kinds:
            raise ValueError(f"corruption is {self.corruption!r}: {self.name} has {', '.join(self.kinds)}")

    @property
    def title(self) -> str:
        return f"{self.name}+{self.corruption}"

    def load(self, root: Path | None = None) -> Data:
        """Read the clean training images, and the corrupted test images. Download missing files."""
        clean = self.clean(augmentation=self.augmentation).load(root)
        return replace(clean, test=self.test(root))

    def test(self, root: Path | None = None) -> Images:
        """The corrupted test images alone, cut like those of the clean data set. Download them if they are missing.

        Raises:
            FileNotFoundError: they are missing and cannot be downloaded, or the archive or folder lacks a file.
            ValueError: a file has unexpected content.
        """
        path = self.located(root)
        if path.name == self.remote.name:
            self.remote.check(path)
        images = self.read(path)
        return replace(images, inputs=self.augmentation.center(images.inputs))

    @classmethod
    def located(cls, root: Path | None = None) -> Path:
        """The folder or archive of the data set. Download the archive if both are missing.

        Raises:
            FileNotFoundError: they are missing and cannot be downloaded.
        """
        return files.locate(root, cls.name, (cls.folder, cls.remote.name), cls.remote)

    @abstractmethod
    def read(self, path: Path) -> Images:
        """The corrupted test images in the folder or archive."""


@dataclass(frozen=True, kw_only=True)
class BySeverity(PublishedCorruption):
    """Corrupted images in five severities.

    Args:
        severity: from 1 to 5; None: all, one after the other.

    Raises:
        ValueError: the severity is another number.
    """

    severity: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.severity not in (None, *SEVERITIES):
            raise ValueError(f"severity is {self.severity}: it must be a whole number from 1 to 5, or None for all")

    @property
    def title(self) -> str:
        return super().title + ("" if self.severity is None else f"-{self.severity}")


@dataclass(frozen=True, kw_only=True)
class MNISTC(PublishedCorruption):
    """MNIST with 10,000 corrupted test images of one kind, in one severity ("identity": clean)."""

    name: ClassVar[str] = "mnist-c"
    kinds: ClassVar[tuple[str, ...]] = MNIST_KINDS
    clean: ClassVar[type[Dataset]] = MNIST
    folder: ClassVar[str] = "mnist_c"
    remote: ClassVar[files.Remote] = files.Remote(
        name="mnist_c.zip",
        sha256="af9ee8c6a815870c7fdde5af84c7bf8db0bcfa1f41056db83871037fba70e493",
        mirrors=("https://zenodo.org/records/3239543/files",),
    )

    def read(self, path: Path) -> Images:
        pixels, labels = _arrays(path, f"{self.corruption}/test_images.npy", f"{self.corruption}/test_labels.npy")
        return _images(path, pixels, labels, (PER_SEVERITY, 28, 28, 1))


@dataclass(frozen=True, kw_only=True)
class CIFAR10C(BySeverity):
    """CIFAR-10 with corrupted test images of one kind; training images are flipped, and shifted by up to 2 pixels."""

    name: ClassVar[str] = "cifar10-c"
    kinds: ClassVar[tuple[str, ...]] = CIFAR_KINDS
    clean: ClassVar[type[Dataset]] = CIFAR10
    folder: ClassVar[str] = "CIFAR-10-C"
    remote: ClassVar[files.Remote] = files.Remote(
        name="CIFAR-10-C.tar",
        sha256="c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7",
        mirrors=("https://zenodo.org/records/2535967/files",),
    )
    augmentation: Augmentation = field(default=Augmentation(flip=True, crop_padding=2))

    def read(self, path: Path) -> Images:
        pixels, labels = _arrays(path, f"{self.corruption}.npy", "labels.npy")
        images = _images(path, pixels, labels, (len(SEVERITIES) * PER_SEVERITY, 32, 32, 3))
        if self.severity is None:
            return images
        return images.subset(slice((self.severity - 1) * PER_SEVERITY, self.severity * PER_SEVERITY))


@dataclass(frozen=True, kw_only=True)
class TinyImageNetC(BySeverity):
    """TinyImageNet with corrupted test images of one kind; training images are flipped, and shifted by up to 4 pixels.

    Unpack the archive, and only the images that are needed are read.
    """

    name: ClassVar[str] = "tinyimagenet-c"
    kinds: ClassVar[tuple[str, ...]] = TINY_KINDS
    clean: ClassVar[type[Dataset]] = TinyImageNet
    folder: ClassVar[str] = "Tiny-ImageNet-C"
    remote: ClassVar[files.Remote] = files.Remote(
        name="Tiny-ImageNet-C.tar",
        md5="f9c9a9dbdc11469f0b850190f7ad8be1",
        mirrors=("https://zenodo.org/records/8206060/files", "https://zenodo.org/records/2536630/files"),
    )
    augmentation: Augmentation = field(default=Augmentation(flip=True, crop_padding=4))

    def read(self, path: Path) -> Images:
        pictures: dict[str, NDArray[np.uint8]] = {}
        wnids: list[str] = []
        for severity in SEVERITIES if self.severity is None else (self.severity,):
            part = self._pictures(path, severity)
            # by file name, so that the first images are of all classes
            for name in sorted(part, key=lambda name: (name.name, name.parent.name)):
                pictures[f"{severity}/{name}"] = part[name]
                wnids.append(name.parent.name)
        classes = sorted(set(wnids))
        if len(classes) != TINY_CLASSES:
            raise ValueError(f"{path} has images of {len(classes)} classes, not of {TINY_CLASSES}; get it again")
        return Images(stack(pictures), torch.tensor([classes.index(wnid) for wnid in wnids]))

    def _pictures(self, path: Path, severity: int) -> dict[PurePosixPath, NDArray[np.uint8]]:
        """The images of one severity, by class and file name."""
        part = path / self.corruption / str(severity) if path.is_dir() else path
        place = () if path.is_dir() else (self.corruption, str(severity))  # the folders before that of the class
        pictures = {
            PurePosixPath(*name.parts[-2:]): decode_image(content, f"{path}/{name}")
            for name, content in entries(
                part, lambda name: name.suffix == ".JPEG" and name.parts[-2 - len(place) : -2] == place
            )
        }
        if len(pictures) != PER_SEVERITY:
            raise FileNotFoundError(
                f"{path} has {len(pictures)} images {self.corruption}/{severity}/CLASS/IMAGE.JPEG, but {PER_SEVERITY} "
                "are expected; get the whole data set"
            )
        return pictures


def published_kinds() -> dict[str, type[PublishedCorruption]]:
    """The published corrupted data sets by name."""
    return {kind.name: kind for kind in (MNISTC, CIFAR10C, TinyImageNetC)}


def published_kind(source: str) -> type[PublishedCorruption]:
    """The published data set of this name. Raises ValueError if there is none."""
    kinds = published_kinds()
    if source not in kinds:
        raise ValueError(f"no corrupted test set is called {source!r}; there are {', '.join(kinds)}")
    return kinds[source]


def published_corruption(
    source: str, name: str, *, severity: int | None = None, augmentation: Augmentation | None = None
) -> PublishedCorruption:
    """A published corrupted data set.

    Args:
        source: "mnist-c", "cifar10-c" or "tinyimagenet-c".
        name: the corruption.
        severity: from 1 to 5; None: all, or the only one.
        augmentation: that of the training images, whose crop test images have; by default that of the data set.

    Raises:
        ValueError: there is no such source, corruption or severity.
    """
    kind, fields = published_kind(source), dict[str, Any](corruption=name)
    if severity is not None:
        if not issubclass(kind, BySeverity):
            raise ValueError(f"severity is {severity}, but the images of {source} have one severity: leave it out")
        fields["severity"] = severity
    if augmentation is not None:
        fields["augmentation"] = augmentation
    return kind(**fields)


def _arrays(path: Path, *names: str) -> list[NDArray[np.integer]]:
    """The arrays in some files of a folder or archive, whose names end so."""
    wanted = [PurePosixPath(name).parts for name in names]
    contents = {
        wanted.index(parts): content
        for name, content in entries(path, lambda name: _end(name, wanted) is not None)
        if (parts := _end(name, wanted))
    }
    missing = [name for place, name in enumerate(names) if place not in contents]
    if missing:
        raise FileNotFoundError(f"{path} lacks {', '.join(missing)}; get the whole data set")
    return [npy.parse(contents[place], f"{path}/{name}") for place, name in enumerate(names)]


def _end(name: PurePosixPath, wanted: list[tuple[str, ...]]) -> tuple[str, ...] | None:
    return next((parts for parts in wanted if name.parts[-len(parts) :] == parts), None)


def _images(path: Path, pixels: NDArray[np.integer], labels: NDArray[np.integer], shape: tuple[int, ...]) -> Images:
    """Images from pixels [N, H, W, C] and labels [N]."""
    if pixels.shape != shape or pixels.dtype != np.uint8 or labels.shape != shape[:1]:
        raise ValueError(
            f"{path} has pixels {pixels.dtype} of shape {list(pixels.shape)} and labels of shape {list(labels.shape)}, "
            f"but uint8 of shape {list(shape)} and {list(shape[:1])} are expected; get it again"
        )
    inputs = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())  # as PyTorch takes no array that is read-only
    return Images(inputs, torch.from_numpy(labels.astype(np.int64)))
