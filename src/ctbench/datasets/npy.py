"""The NPY format of NumPy: an array after a header that describes it. Arrays of objects are pickles: they are refused.

The format is described at https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

import io
import math
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
SHOWN = 200  # letters of a reason


def parse(content: bytes, name: str) -> NDArray[np.integer]:
    """The array of integers in the content of an NPY file. The content is never unpickled.

    Args:
        content: the content of the file.
        name: the file, for error messages.

    Raises:
        ValueError: it is not an NPY file, is truncated, or does not hold integers.
    """
    file = io.BytesIO(content)
    try:
        shape, by_columns, dtype = READERS[npy.read_magic(file)](file)
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]
        raise ValueError(f"{name} is not an NPY file of integers ({reason}); get the file again") from None
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(f"{name} holds {dtype}, but integers are expected; get the file again")
    there, expected = len(content) - file.tell(), math.prod(shape) * dtype.itemsize
    if there != expected or min(shape, default=0) < 0:
        raise ValueError(
            f"{name} has {there} bytes of data, but its header describes an array of shape {list(shape)} in "
            f"{expected} bytes; get the file again"
        )
    array = np.frombuffer(content, dtype=dtype, offset=file.tell())
    return array.reshape(shape, order="F" if by_columns else "C")
