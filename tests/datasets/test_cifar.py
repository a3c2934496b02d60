"""CIFAR-10 in both published forms. No pickle is loaded here either, only written."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from ctbench.datasets import CIFAR10, cifar
from ctbench.datasets.cifar import binary_batch, python_batch
from ctbench.datasets.files import Remote

RECORDS = 20
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 20 records in place of 10,000."""
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)


def batch(seed: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.default_rng(seed)
    return random.integers(256, size=(RECORDS, 3072), dtype=np.uint8), random.integers(10, size=RECORDS).tolist()


def binary(pixels: np.ndarray, labels: list[int]) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def python2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The instructions of a published batch, as Python 2 wrote them with protocol 2."""

    def short(text: bytes) -> bytes:  # SHORT_BINSTRING
        return b"U" + bytes([len(text)]) + text

    def number(value: int) -> bytes:  # BININT1 or BININT2
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    dtype = (
        b"cnumpy\ndtype\nq\x0a(" + short(b"u1") + b"K\x00K\x01tRq\x0b(K\x03" + short(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85" + short(b"b") + b"\x87Rq\x07"
        b"(K\x01" + number(len(labels)) + number(3072) + b"\x86" + dtype + b"\x89"
        b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"  # BINSTRING
    )
    return (
        b"\x80\x02}q\x01("
        + (short(b"data") + b"q\x04" + array)
        + (short(b"labels") + b"q\x08]q\x09(" + b"".join(map(number, labels)) + b"e")
        + (short(b"batch_label") + b"q\x02" + short(b"training batch 1 of 5") + b"q\x03")
        + (short(b"filenames") + b"]q\x0c(" + short(b"leptodactylus_s_000004.png") + b"e")
        + b"u."
    )


def pickled(pixels: np.ndarray, labels: list[int], protocol: int, *, as_bytes: bool = False) -> bytes:
    entries = {"batch_label": "one", "labels": labels, "data": pixels, "filenames": ["a.png"] * RECORDS}
    return pickle.dumps({key.encode(): value for key, value in entries.items()} if as_bytes else entries, protocol)


def check(images, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    expected = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images.inputs.numpy(), expected)
    assert images.labels.tolist() == [label for _, labels in batches for label in labels]


@pytest.mark.parametrize("place", ["cifar10", "."])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_every_form_in_every_place(
    form: str, packed: bool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tarred, folder
):
    batches = [batch(seed) for seed in range(6)]
    inside = "cifar-10-batches-bin" if form == "binary" else "cifar-10-batches-py"
    encode, suffix = (binary, ".bin") if form == "binary" else (python2, "")
    contents = {f"{inside}/{name}{suffix}": encode(*each) for name, each in zip(NAMES, batches, strict=True)}
    contents |= {f"{inside}/readme.html": b"<html>"}
    contents = dict(reversed(contents.items()))  # the order of an archive means nothing
    if packed:
        path = tarred(tmp_path / place / f"cifar-10-{form}.tar.gz", contents)
        remote = Remote(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), mirrors=())
        monkeypatch.setattr(cifar, form.upper(), remote)
    else:
        folder(tmp_path / place, contents)
    data = CIFAR10().load(tmp_path)
    check(data.train, batches[:5])
    check(data.test, batches[5:])
    assert data.class_names[3] == "cat"
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.std == (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_batches_of_every_protocol(protocol: int, as_bytes: bool):
    pixels, labels = batch(0)
    read, numbers = python_batch(pickled(pixels, labels, protocol, as_bytes=as_bytes), "some")
    assert np.array_equal(read, pixels.reshape(RECORDS, 3, 32, 32))
    assert numbers == labels


def test_python_2_batches_and_the_pickle_agree():
    pixels, labels = batch(1)
    read, numbers = python_batch(python2(pixels, labels), "some")
    assert np.array_equal(read, pixels.reshape(RECORDS, 3, 32, 32))
    assert numbers == labels


def test_a_pickle_is_never_run(tmp_path: Path):
    trap = b"cpathlib\nPath\n(V" + str(tmp_path / "sprung").encode() + b"\ntR."
    with pytest.raises(ValueError, match="some has 0 labels and 0 bytes of pixels, but a batch has 20 and 61440; get"):
        python_batch(b"cbuiltins\nexec\n(Vraise SystemExit\ntR0" + trap, "some")


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1])
def test_a_python_batch_cut_short_is_refused(length: int):
    with pytest.raises(ValueError, match=r"some is not a complete pickle .*; get the file again"):
        python_batch(python2(*batch(0))[:length], "some")


def test_a_python_batch_lacks_labels():
    pixels, labels = batch(0)
    with pytest.raises(ValueError, match="some has 19 labels and 61440 bytes of pixels"):
        python_batch(python2(pixels, labels[1:]), "some")


def test_a_binary_batch_of_another_length_is_refused():
    with pytest.raises(ValueError, match="some has 61459 bytes, but a batch has 61460; get the file again"):
        binary_batch(binary(*batch(0))[1:], "some")


def test_a_missing_batch_is_named(tmp_path: Path, folder):
    contents = {f"{name}.bin": binary(*batch(0)) for name in NAMES if name != "data_batch_3"}
    folder(tmp_path / "cifar-10-batches-bin", contents)
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin lacks data_batch_3.bin; get all six batches"):
        CIFAR10().load(tmp_path)


def test_a_label_that_names_no_class_is_refused(tmp_path: Path, folder):
    pixels, labels = batch(0)
    contents = {f"{name}.bin": binary(pixels, labels) for name in NAMES}
    contents["data_batch_2.bin"] = binary(pixels, [0, 10, *labels[2:]])
    folder(tmp_path / "cifar-10-batches-bin", contents)
    with pytest.raises(ValueError, match="label 10 of training example 21 is not the number of a class"):
        CIFAR10().load(tmp_path)


def test_another_archive_is_refused(tmp_path: Path, tarred):
    tarred(tmp_path / "cifar-10-binary.tar.gz", {"a": b""})
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz: the SHA-256 is .*, expected c4a38c50.*: delete it"):
        CIFAR10().load(tmp_path)


def test_a_missing_data_set_names_what_was_looked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin or cifar-10-batches-py or .*cs.toronto.edu"):
        CIFAR10().load(tmp_path)
