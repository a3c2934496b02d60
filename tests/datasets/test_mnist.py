"""MNIST in every place and packing, synthetic and real."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from tests.idx import idx

from ctbench.datasets import MNIST, mnist
from ctbench.datasets.idx import parse, read_unpacked

COUNTS = {"train": 5, "t10k": 3}


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A small MNIST by file name; its checksums are accepted."""
    random = np.random.default_rng(0)
    files = {}
    for part, count in COUNTS.items():
        files[f"{part}-images-idx3-ubyte"] = random.integers(256, size=(count, 4, 5), dtype=np.uint8)
        files[f"{part}-labels-idx1-ubyte"] = random.integers(10, size=count, dtype=np.uint8)
    hashes = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in files.items()}
    monkeypatch.setattr(mnist, "UNPACKED_SHA256", hashes)
    return files


@pytest.mark.parametrize("place", ["mnist", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_packed_or_not(place: str, packed: bool, arrays: dict[str, np.ndarray], tmp_path: Path):
    (tmp_path / place).mkdir(exist_ok=True)
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if packed else idx(array)
        (tmp_path / place / (f"{name}.gz" if packed else name)).write_bytes(content)
    data = MNIST().load(tmp_path)
    for part, images in (("train", data.train), ("t10k", data.test)):
        assert images.inputs[:, 0].numpy().tolist() == arrays[f"{part}-images-idx3-ubyte"].tolist()
        assert images.labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"].tolist()
    assert data.input_shape == (1, 4, 5)
    assert data.class_names == tuple("0123456789")
    assert (data.mean, data.std) == ((0.1307,), (0.3081,))


def test_another_content_is_refused(arrays: dict[str, np.ndarray], tmp_path: Path):
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[0] ^= 1
        (tmp_path / name).write_bytes(idx(changed if name.startswith("t10k-images") else array))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: the unpacked SHA-256 is .*, expected .*: delete it"):
        MNIST().load(tmp_path)


@pytest.mark.usefixtures("arrays")
def test_a_missing_file_names_every_mirror(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as error:
        MNIST().load(tmp_path)
    for text in (
        "train-images-idx3-ubyte or train-images-idx3-ubyte.gz",
        str(tmp_path / "mnist"),
        *mnist.MIRRORS,
    ):
        assert text in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 60, -4])
def test_a_gzip_cut_short_is_refused(kept: int, tmp_path: Path):
    path = tmp_path / "some.gz"
    path.write_bytes(gzip.compress(np.random.default_rng(0).bytes(100))[:kept])
    if kept:
        with pytest.raises(ValueError, match=r"some.gz is not a complete gzip file .*; delete it, and it will be"):
            read_unpacked(path)
    else:
        assert read_unpacked(path) == b"", "an empty file unpacks to nothing, which is no IDX file"


def test_a_damaged_gzip_is_refused(tmp_path: Path):
    path = tmp_path / "some.gz"
    content = bytearray(gzip.compress(b"content " * 100))
    content[12] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete gzip file"):
        read_unpacked(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "some begins with nothing, but an IDX file of bytes in 1 dimensions begins with 00 00 08 01; check"),
        (b"\x89PNG....", "some begins with 89 50 4e 47"),
        (idx(np.zeros((2, 2), np.uint8)), "some begins with 00 00 08 02"),
        (
            idx(np.zeros(5, np.uint8))[:-1],
            r"some has 12 bytes, .* an array of shape \[5\] in 13 bytes; get the file again",
        ),
        (idx(np.zeros(5, np.uint8)) + b"0", "some has 14 bytes"),
        (idx(np.zeros(5, np.uint8))[:6], "some has 6 bytes"),
    ],
)
def test_a_wrong_idx_file_is_refused(content: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        parse(content, Path("some"), dimensions=1)


def test_the_real_mnist():
    root = Path(os.environ.get("CTBENCH_DATA", "."))
    if not (root / "mnist").exists():
        pytest.skip("CTBENCH_DATA names no folder with mnist/")
    data = MNIST().load(root)
    assert (len(data.train), len(data.test), data.input_shape) == (60_000, 10_000, (1, 28, 28))
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    pixels = data.train.inputs.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
