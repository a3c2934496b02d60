"""Inputs and labels as tensors, from what PyTorch users have: tensors, arrays, data sets and data loaders."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

Array: TypeAlias = "Tensor | NDArray[Any]"
Source: TypeAlias = "tuple[Array, Array] | DataLoader[Any] | TorchDataset[Any]"
BATCH = 256


def tensors(source: Source) -> tuple[Tensor, Tensor]:
    """Inputs [N, *shape] and labels [N] of a source, read once, in its order.

    A data loader that shuffles or augments gives other tensors each time. Give it without both: the augmentation of a
    recipe and the shuffling of its epochs are the business of training.

    Raises:
        ValueError: the source is of no kind that is read, or its items are not an input and a label.
    """
    if isinstance(source, tuple | list) and len(source) == 2:
        x, y = (_shared(part) if isinstance(part, np.ndarray) else part for part in source)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x.detach(), y.detach().long() if not y.is_floating_point() else y.detach()
    if isinstance(source, TorchDataset):
        source = DataLoader(source, batch_size=BATCH)
    if not isinstance(source, DataLoader):
        raise ValueError(
            f"the data are a {type(source).__name__}: give (inputs, labels), tensors or arrays, a torch Dataset or a "
            f"DataLoader"
        )
    try:
        batches = [tensors((x, y)) for x, y in source]
    except (TypeError, ValueError) as error:  # what torch says of items that are not tensors, e.g. pictures
        raise ValueError(
            f"an item of the data is not a pair of an input, as a tensor, and a label ({error}): give a transform to "
            f"tensors"
        ) from None
    if not batches:
        raise ValueError("the data hold no batch: give at least one example")
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return x, y


def _shared(array: NDArray[Any]) -> Tensor:
    """A tensor on the memory of an array, or on a copy if that memory is read-only, as of `np.frombuffer`."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
