"""The IDX format of MNIST: arrays of bytes after a header of big-endian integers.

    00 00 08 D    D sizes of 4 bytes each    the values, last index fastest        (08: unsigned bytes)

The format is described at http://yann.lecun.com/exdb/mnist.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_unpacked(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz.

    Raises:
        ValueError: the gzip data are damaged or truncated.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a complete gzip file ({error}); delete it, and it will be downloaded again"
        ) from error


def parse(content: bytes, path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array of bytes in the content of an IDX file.

    Args:
        content: the unpacked content of the file.
        path: the file, for error messages.
        dimensions: the number of dimensions that the array must have.

    Raises:
        ValueError: the header is not the expected one, or the length does not match it.
    """
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise ValueError(
            f"{path} begins with {content[:4].hex(' ') or 'nothing'}, but an IDX file of bytes in "
            f"{dimensions} dimensions begins with {magic.hex(' ')}; check the name of the file"
        )
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(content[start : start + 4]) for start in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise ValueError(
            f"{path} has {len(content)} bytes, but its header describes an array of shape {shape} in "
            f"{header + math.prod(shape)} bytes; get the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
