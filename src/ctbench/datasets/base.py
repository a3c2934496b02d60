"""The base classes of data sets: labelled tensors in memory, images or vectors; and how to split them.

data = MNIST().load()
train, validation = stratified_split(data.train, fraction=0.1, seed=0)
x, y = train[torch.arange(128)]
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor

from ctbench.datasets import sources
from ctbench.datasets.augmentation import Augmentation
from ctbench.datasets.sources import Source

E = TypeVar("E", bound="Examples")
Index = Tensor | slice | list[int]  # no tuple: torch would read it as one index per dimension


@dataclass(frozen=True, eq=False)
class Examples(ABC):
    """Labelled inputs in memory.

    Raises:
        ValueError: there are no examples, the shapes disagree, or the subclass rejects the inputs.
    """

    inputs: Tensor  # [N, *shape]
    labels: Tensor  # [N], int64

    def __post_init__(self) -> None:
        self._check_inputs()
        inputs, labels = self.inputs, self.labels
        if labels.shape != inputs.shape[:1]:
            raise ValueError(
                f"{len(inputs)} inputs have labels of shape {list(labels.shape)}; "
                f"give one label per input, [{len(inputs)}]"
            )
        if labels.dtype != torch.int64:
            raise ValueError(f"labels are {labels.dtype}; convert them to torch.int64")

    @abstractmethod
    def _check_inputs(self) -> None:
        """Raise ValueError if the inputs have a wrong shape, type or range."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one batch: x [B, *shape] float32, pixels in [0, 1], and y [B]."""
        return self.batch(index, self.labels.device)

    def batch(self, index: Index, device: torch.device) -> tuple[Tensor, Tensor]:
        """One batch as above, on a device. It is copied in its stored type, without waiting for an accelerator."""
        x, y = (_moved(tensor[index], device) for tensor in (self.inputs, self.labels))
        x = x.to(torch.float32)
        return (x if self.inputs.is_floating_point() else x / 255), y

    def subset(self, index: Index) -> Self:
        """The examples at `index`, in their stored type."""
        return replace(self, inputs=self.inputs[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> Self:
        """The same examples on another device."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # only copies from pinned memory are asynchronous
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Images(Examples):
    """Images [N, C, H, W], uint8 from 0 to 255 or floating point in [0, 1]."""

    def _check_inputs(self) -> None:
        pixels = self.inputs
        if pixels.dim() != 4 or not pixels.numel():
            raise ValueError(f"images have shape {list(pixels.shape)}; expected [N, C, H, W], no size 0")
        if pixels.is_floating_point():
            low, high = pixels.aminmax()
            if not (low >= 0 and high <= 1):
                raise ValueError(f"pixels lie in [{low:.4g}, {high:.4g}]; scale them to [0, 1]")
        elif pixels.dtype != torch.uint8:
            raise ValueError(f"pixels are {pixels.dtype}; give torch.uint8, or floating point in [0, 1]")


@dataclass(frozen=True, eq=False)
class Vectors(Examples):
    """Vectors [N, d] of finite numbers, floating point; there is no data range, so threat models need clip=None."""

    def _check_inputs(self) -> None:
        vectors = self.inputs
        if vectors.dim() != 2 or not vectors.numel():
            raise ValueError(f"vectors have shape {list(vectors.shape)}; expected [N, d], no size 0")
        if not vectors.is_floating_point() or not bool(torch.isfinite(vectors).all()):
            raise ValueError(f"vectors of {vectors.dtype}; give finite floating point numbers")


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory. Training images may be larger than test images, if training crops them to that size.

    Raises:
        ValueError: a label is not the number of a class, the shapes of training and test inputs do not agree, or the
            normalisation does not fit them.
    """

    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None  # per channel, of pixels in [0, 1]; None: no normalisation
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for part, images in (("training", self.train), ("test", self.test)):
            bad = ((images.labels < 0) | (images.labels >= self.classes)).nonzero()
            if len(bad):
                first = int(bad[0])
                raise ValueError(
                    f"label {int(images.labels[first])} of {part} example {first} is not the number of a class; "
                    f"labels of {self.classes} classes run from 0 to {self.classes - 1}"
                )
        training = tuple(self.train.inputs.shape[1:])
        if training != self.input_shape and not _cut_from(self.input_shape, training):
            raise ValueError(
                f"training inputs have shape {training} and test inputs {self.input_shape}; bring them to one shape"
            )
        lengths = {None if values is None else len(values) for values in (self.mean, self.std)}
        if lengths not in ({None}, {self.input_shape[0]}):
            raise ValueError(
                f"mean is {self.mean} and std is {self.std} for images of {self.input_shape[0]} channels; "
                "give one value per channel each, or None for both"
            )

    @classmethod
    def of(
        cls,
        train: Source,
        test: Source,
        *,
        classes: int | Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Self:
        """Data of your own.

        Args:
            train, test: (inputs, labels), tensors or arrays; a torch Dataset; or a DataLoader, which is read once.
                Images are [N, C, H, W], uint8 or floating point in [0, 1], and not normalised; vectors are [N, d].
            classes: their number or their names; None: the labels say how many there are.
            mean, std: per channel, of pixels in [0, 1], for a network that a recipe builds; a module of your own
                normalises by itself.

        Raises:
            ValueError: also for inputs that are neither images nor vectors.
        """
        training, tested = (_examples(*sources.tensors(source)) for source in (train, test))
        if classes is None:
            classes = 1 + max(int(part.labels.max()) for part in (training, tested))
        names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
        mean, std = (None if values is None else tuple(map(float, values)) for values in (mean, std))
        return cls(training, tested, names, mean, std)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of a network, e.g. (C, H, W)."""
        return tuple(self.test.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def _examples(inputs: Tensor, labels: Tensor) -> Examples:
    """Images, if there are four axes, or vectors."""
    if inputs.dim() not in (2, 4):
        raise ValueError(
            f"inputs have shape {list(inputs.shape)}: give images [N, C, H, W] (grey ones as x[:, None]) or vectors "
            f"[N, d]"
        )
    return Images(inputs, labels) if inputs.dim() == 4 else Vectors(inputs, labels)


def _cut_from(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether images of one shape can be cut from those of another, both [C, H, W]."""
    return len(shape) == len(image) == 3 and shape[0] == image[0] and shape[1] <= image[1] and shape[2] <= image[2]


def stratified_split(examples: E, *, fraction: float, seed: int) -> tuple[E, E]:
    """Hold out a validation set: (training examples, validation examples), each in the order of `examples`.

    The validation set contains the same fraction of every class, rounded to whole examples. The choice depends only on
    the labels and the seed, not on the device.

    Args:
        examples: the examples to split.
        fraction: the fraction for the validation set, between 0 and 1.
        seed: the seed of the random choice.

    Raises:
        ValueError: the fraction is not between 0 and 1, or one part would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; give a share between 0 and 1, such as 0.1")
    labels = examples.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(examples), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        count = int(fraction * len(members) + 0.5)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if held_out.all() or not held_out.any():
        raise ValueError(
            f"a fraction of {fraction} of {len(examples)} examples leaves one part empty; use more examples, "
            "or a fraction that is at least half an example of some class"
        )
    held_out = held_out.to(examples.labels.device)
    return examples.subset(~held_out), examples.subset(held_out)


def part(examples: E, *, count: int, seed: int) -> E:
    """Return `count` of the examples, chosen at random, in their order. The choice depends only on the seed.

    Raises:
        ValueError: there are fewer examples.
    """
    if count > len(examples):
        raise ValueError(f"train_samples is {count}, but the training set has {len(examples)} samples")
    places = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return examples.subset(places.to(examples.labels.device))


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """The source of the data, and their augmentation. A subclass has to define only `load`.

    Recipes and the command line use its `name`.
    """

    name: ClassVar[str]
    augmentation: Augmentation = field(default=Augmentation())

    @property
    def title(self) -> str:
        """What records call it; data sets with other test images have another title."""
        return self.name

    @abstractmethod
    def load(self, root: Path | None = None) -> Data:
        """Read the data set. Download it first if files are missing and there is a source. Ends with `cut`.

        Args:
            root: the folder with the files; None: the environment variable CTBENCH_DATA, or else the
                user's cache.

        Raises:
            FileNotFoundError: files are missing and cannot be downloaded.
            ValueError: a file has unexpected content.
        """

    def cut(self, data: Data) -> Data:
        """The data, with center crops of the test images if training crops its images.

        Raises:
            ValueError: the crop does not fit into the images.
        """
        return replace(data, test=replace(data.test, inputs=self.augmentation.center(data.test.inputs)))
