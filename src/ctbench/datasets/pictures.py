"""Decoding image files of any format that Pillow reads."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def decode_image(
    content: bytes, name: str, *, grey: bool = False, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """One image file as bytes [C, H, W]: one channel if `grey`, otherwise three.

    Args:
        content: the content of the file.
        name: the name of the file, for error messages.
        grey: convert to one channel of brightness; otherwise grey images get three equal channels.
        size: (height, width) to resize to, by bilinear interpolation over the area of each new pixel.

    Raises:
        ValueError: the file is not an image, is damaged, or has more than 8 bits per channel.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        if image.mode.startswith(("I", "F")):  # Pillow would silently clip 16 bits at 255
            raise ValueError(f"it has mode {image.mode}, but 8 bits per channel are expected")
        image = image.convert("L" if grey else "RGB")
    except Exception as error:  # the decoders of Pillow raise many types of errors
        raise ValueError(f"{name} cannot be read as an image ({error}); repair or remove it") from error
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def stack(pictures: dict[str, NDArray[np.uint8]]) -> Tensor:
    """The images as one tensor [N, C, H, W], in the order of the dictionary.

    Raises:
        ValueError: two images differ in size; the message names both.
    """
    first, *others = pictures
    shape = pictures[first].shape
    for name in others:
        if pictures[name].shape != shape:
            sizes = ["x".join(map(str, pictures[each].shape[1:])) for each in (first, name)]
            raise ValueError(
                f"{first} is {sizes[0]} pixels and {name} is {sizes[1]} (height x width); "
                "all images must have one size: resize them, or give a size to resize to"
            )
    return torch.from_numpy(np.ascontiguousarray(np.stack(list(pictures.values()))))
