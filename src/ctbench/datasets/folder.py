"""Any images of your own: a folder, a tar or a zip with one folder per class.

    train/CLASS/IMAGE        test/CLASS/IMAGE

in any format that Pillow reads, at the top or inside other folders.

    Folder(path="cifar10-jpeg.tar.gz").load()
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ctbench.datasets import files
from ctbench.datasets.base import Data, Dataset, Images
from ctbench.datasets.entries import entries
from ctbench.datasets.pictures import decode_image, stack

PARTS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Folder(Dataset):
    """Images in folders by class, with the classes numbered in the order of their names; not normalised.

    Hidden files and everything outside train/ and test/ are ignored. Transparency is dropped.

    Args:
        path: of the folder or archive; a relative path is looked up in the data root, then in the working folder.
        size: (height, width) in pixels to resize to; None: all images must have one size.
        grey: one channel of brightness instead of three colour channels.
    """

    name: ClassVar[str] = "folder"
    path: str
    size: tuple[int, int] | None = None
    grey: bool = False

    def load(self, root: Path | None = None) -> Data:
        """Read and decode every image."""
        path = self._find(files.data_root(root))
        pictures: dict[str, dict[PurePosixPath, NDArray[np.uint8]]] = {part: {} for part in PARTS}
        for name, content in entries(path, _is_image):
            if name.parts[-3:-2] not in [(part,) for part in PARTS]:
                raise ValueError(f"{path}/{name} does not lie in a folder train/CLASS or test/CLASS; move or remove it")
            pictures[name.parts[-3]][name] = decode_image(content, f"{path}/{name}", grey=self.grey, size=self.size)
        return self.cut(_assemble(path, pictures))

    def _find(self, root: Path) -> Path:
        for path in (root / self.path, Path(self.path)):
            if path.exists():
                return path
        raise FileNotFoundError(
            f"no {self.path} in {root} or in the working folder {Path.cwd()}; "
            "give the path of a folder, tar or zip with train/CLASS/IMAGE and test/CLASS/IMAGE"
        )


def _is_image(name: PurePosixPath) -> bool:
    """Whether a file lies at the depth of an image, or deeper. Deeper files are an error, so they are not ignored."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and any(part in PARTS for part in name.parts[:-2])


def _assemble(path: Path, pictures: Mapping[str, Mapping[PurePosixPath, NDArray[np.uint8]]]) -> Data:
    """Number the classes, and put images and labels together."""
    classes = {part: {name.parts[-2] for name in pictures[part]} for part in PARTS}
    for part in PARTS:
        if not classes[part]:
            raise ValueError(f"{path} has no images {part}/CLASS/IMAGE; add some")
    one_sided = sorted(classes["train"] ^ classes["test"])
    if one_sided:
        raise ValueError(
            f"{path}: only one of train and test has images of {', '.join(one_sided)}; both need the same classes"
        )
    class_names = tuple(sorted(classes["train"]))
    number = {name: index for index, name in enumerate(class_names)}
    names = {part: sorted(pictures[part]) for part in PARTS}
    pixels = stack({f"{path}/{name}": pictures[part][name] for part in PARTS for name in names[part]})
    labels = torch.tensor([number[name.parts[-2]] for part in PARTS for name in names[part]])
    first = len(names["train"])
    return Data(
        train=Images(pixels[:first], labels[:first]),
        test=Images(pixels[first:], labels[first:]),
        class_names=class_names,
    )
