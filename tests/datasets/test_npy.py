"""Arrays of NumPy's format, read without unpickling."""

import io

import numpy as np
import pytest

from ctbench.datasets import npy


def saved(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    assert np.array_equal(npy.parse(saved(array), "x"), array)


def test_the_second_version_of_the_format_is_read():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert npy.parse(file.getvalue(), "x").tolist() == [0, 1, 2]


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x.npy is not an NPY file of integers"),
        (b"\x80\x04K\x01.", "x.npy is not an NPY file of integers"),
        (b"\x93NUMPY\x01\x00", "x.npy is not an NPY file of integers"),
        (b"\x93NUMPY\x07\x00" + bytes(100), "x.npy is not an NPY file of integers"),
        (
            saved(np.arange(9))[:-1],
            r"x.npy has 71 bytes of data, but its header describes an array of shape \[9\] in 72",
        ),
        (saved(np.arange(9)) + b"0", "x.npy has 73 bytes of data"),
        (saved(np.zeros(3)), "x.npy holds float64, but integers are expected"),
        (saved(np.array([Bomb()], dtype=object), allow_pickle=True), "x.npy holds object, but integers"),
        (
            saved(np.zeros((2, 4), np.uint8)).replace(b"(2, 4)", b"(-2,-4)").replace(b"} ", b"}"),
            "x.npy has 8 bytes of data",
        ),
        (saved(np.arange(2)).replace(b"(2,)", b"(2, "), "x.npy is not an NPY file of integers"),
    ],
)
def test_damage_is_one_line(content, said):
    with pytest.raises(ValueError, match=said) as raised:
        npy.parse(content, "x.npy")
    assert "\n" not in str(raised.value)
