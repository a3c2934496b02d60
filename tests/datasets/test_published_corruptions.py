"""MNIST-C, CIFAR-10-C and TinyImageNet-C from small files of their formats."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from ctbench.datasets import (
    CIFAR10C,
    MNIST,
    MNISTC,
    Augmentation,
    Data,
    Images,
    TinyImageNetC,
    published_corruption,
    published_corruptions,
)
from ctbench.datasets.files import Remote

COUNT = 4  # images of a severity
WNIDS = ("n01", "n02")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(published_corruptions, "PER_SEVERITY", COUNT)
    monkeypatch.setattr(published_corruptions, "TINY_CLASSES", len(WNIDS))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


MNIST_FILES = {
    "mnist_c/fog/test_images.npy": npy(pixels(COUNT, 28, 28, 1)),
    "mnist_c/fog/test_labels.npy": npy(np.array([3, 1, 4, 1])),
    "mnist_c/fog/train_images.npy": b"not read",
    "mnist_c/stripe/test_images.npy": npy(pixels(COUNT, 28, 28, 1, seed=1)),
    "mnist_c/stripe/test_labels.npy": npy(np.array([2, 7, 1, 8], dtype=np.uint8)),
}
CIFAR = {
    "CIFAR-10-C/README.txt": b"",
    "CIFAR-10-C/fog.npy": npy(pixels(5 * COUNT, 32, 32, 3)),
    "CIFAR-10-C/labels.npy": npy(np.arange(5 * COUNT, dtype=np.uint8) % 10),
    "CIFAR-10-C/gaussian_blur.npy": npy(pixels(5 * COUNT, 32, 32, 3, seed=1)),
}


@pytest.fixture
def tiny(png) -> dict[str, bytes]:
    """Two images of each class in each severity; PNG content, to compare values without loss."""
    return {
        f"Tiny-ImageNet-C/{kind}/{severity}/{wnid}/test_{number}.JPEG": png(colour(kind, severity, wnid, number))
        for kind in ("fog", "snow")
        for severity in range(1, 6)
        for wnid in WNIDS
        for number in (1, 0)
    }


def colour(kind: str, severity: int, wnid: str, number: int) -> np.ndarray:
    return pixels(8, 8, 3, seed=sum(map(ord, f"{kind}{wnid}")) * 100 + severity * 10 + number)


def known(monkeypatch, kind: type, path: Path, **checksum: str) -> None:
    checksum = checksum or {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setattr(kind, "remote", Remote(name=path.name, mirrors=(), **checksum))


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_c(packed, tmp_path, folder, zipped, monkeypatch):
    if packed:
        known(monkeypatch, MNISTC, zipped(tmp_path / "mnist-c" / "mnist_c.zip", MNIST_FILES))
    else:
        folder(tmp_path, MNIST_FILES)
    images = MNISTC(corruption="stripe").test(tmp_path)
    assert images.labels.tolist() == [2, 7, 1, 8]
    assert images.inputs.dtype == torch.uint8
    assert np.array_equal(images.inputs.numpy()[:, 0], pixels(COUNT, 28, 28, 1, seed=1)[..., 0])
    assert MNISTC(corruption="fog").test(tmp_path).labels.tolist() == [3, 1, 4, 1]


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_c(packed, tmp_path, folder, tarred, monkeypatch):
    if packed:
        known(monkeypatch, CIFAR10C, tarred(tmp_path / "cifar10-c" / "CIFAR-10-C.tar", CIFAR))
    else:
        folder(tmp_path, CIFAR)
    everything = CIFAR10C(corruption="fog").test(tmp_path)
    assert everything.inputs.shape == (5 * COUNT, 3, 32, 32)
    assert np.array_equal(everything.inputs.permute(0, 2, 3, 1).numpy(), pixels(5 * COUNT, 32, 32, 3))
    third = CIFAR10C(corruption="fog", severity=3).test(tmp_path)
    assert torch.equal(third.inputs, everything.inputs[2 * COUNT : 3 * COUNT])
    assert third.labels.tolist() == [8, 9, 0, 1]


@pytest.mark.parametrize("packed", [True, False])
def test_tinyimagenet_c(packed, tiny, tmp_path, folder, tarred, monkeypatch):
    if packed:
        path = tarred(tmp_path / "Tiny-ImageNet-C.tar", tiny)
        known(monkeypatch, TinyImageNetC, path, md5=hashlib.md5(path.read_bytes()).hexdigest())
    else:
        folder(tmp_path / "tinyimagenet-c", tiny)
    images = TinyImageNetC(corruption="snow", severity=2).test(tmp_path)
    assert images.labels.tolist() == [0, 1, 0, 1]
    expected = [colour("snow", 2, wnid, number) for number in (0, 1) for wnid in WNIDS]
    assert np.array_equal(images.inputs.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    everything = TinyImageNetC(corruption="snow").test(tmp_path)
    assert len(everything) == 5 * COUNT
    assert torch.equal(everything.inputs[COUNT : 2 * COUNT], images.inputs)
    cropped = TinyImageNetC(corruption="snow", severity=2, augmentation=Augmentation(crop=4)).test(tmp_path)
    assert torch.equal(cropped.inputs, images.inputs[:, :, 2:6, 2:6])


def test_training_images_are_clean(tmp_path, folder, monkeypatch):
    clean = Data(
        train=Images(torch.zeros(2, 1, 28, 28), torch.tensor([0, 9])),
        test=Images(torch.zeros(1, 1, 28, 28), torch.tensor([0])),
        class_names=tuple("0123456789"),
        mean=(0.1,),
        std=(0.3,),
    )
    folder(tmp_path, MNIST_FILES)
    monkeypatch.setattr(MNIST, "load", lambda dataset, root: clean)
    data = MNISTC(corruption="fog").load(tmp_path)
    assert torch.equal(data.train.inputs, clean.train.inputs)
    assert data.test.labels.tolist() == [3, 1, 4, 1]
    assert (data.mean, data.classes) == ((0.1,), 10)


def test_titles():
    assert MNISTC(corruption="fog").title == "mnist-c+fog"
    assert CIFAR10C(corruption="fog").title == "cifar10-c+fog"
    assert TinyImageNetC(corruption="fog", severity=5).title == "tinyimagenet-c+fog-5"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (MNISTC, {"corruption": "frost"}, "corruption is 'frost': mnist-c has brightness, canny_edges, "),
        (CIFAR10C, {"corruption": "zigzag"}, "corruption is 'zigzag': cifar10-c has brightness, contrast, "),
        (
            CIFAR10C,
            {"corruption": "fog", "severity": 0},
            "severity is 0: it must be a whole number from 1 to 5, or None",
        ),
    ],
)
def test_unknown_kinds_and_severities(kind, fields, said):
    with pytest.raises(ValueError, match=said):
        kind(**fields)


def test_cifar10_c_has_19_kinds_and_the_others_15():
    assert len(published_corruptions.CIFAR_KINDS) == 19
    assert len(published_corruptions.TINY_KINDS) == 15
    assert len(set(published_corruptions.MNIST_KINDS) - {"identity"}) == 15


@pytest.mark.parametrize("kind", [MNISTC, CIFAR10C, TinyImageNetC])
def test_missing_files_say_where_they_were_looked_for(kind, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded: https://zenodo\.org/records/\d+/files/"
    ) as it:
        kind(corruption="fog").test(tmp_path)
    assert "\n" not in str(it.value)


def test_an_archive_with_another_checksum_is_refused(tmp_path, zipped, tarred, tiny):
    zipped(tmp_path / "mnist_c.zip", MNIST_FILES)
    with pytest.raises(ValueError, match=r"mnist_c\.zip: the SHA-256 is .*, expected af9ee8c6.*: delete it"):
        MNISTC(corruption="fog").test(tmp_path)
    tarred(tmp_path / "Tiny-ImageNet-C.tar", tiny)
    with pytest.raises(ValueError, match=r"C\.tar: the MD5 is .*, expected f9c9a9db"):
        TinyImageNetC(corruption="fog").test(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"CIFAR-10-C/labels.npy": None}, r"CIFAR-10-C lacks labels\.npy; get the whole data set"),
        ({"CIFAR-10-C/fog.npy": None}, r"CIFAR-10-C lacks fog\.npy"),
        ({"CIFAR-10-C/fog.npy": npy(pixels(20, 32, 32, 3))[:-5]}, r"fog\.npy has \d+ bytes of data, but its header"),
        ({"CIFAR-10-C/fog.npy": b"junk"}, r"fog\.npy is not an NPY file"),
        ({"CIFAR-10-C/fog.npy": npy(pixels(19, 32, 32, 3))}, r"pixels uint8 of shape \[19, 32, 32, 3\].* expected"),
        ({"CIFAR-10-C/labels.npy": npy(np.zeros(3, np.int64))}, r"labels of shape \[3\]"),
        ({"CIFAR-10-C/fog.npy": npy(pixels(20, 32, 32, 3).astype(np.int32))}, "pixels int32"),
    ],
)
def test_damaged_folders_are_one_line(changes, said, tmp_path, folder):
    folder(tmp_path, {name: content for name, content in (CIFAR | changes).items() if content is not None})
    with pytest.raises((ValueError, FileNotFoundError), match=said) as raised:
        CIFAR10C(corruption="fog").test(tmp_path)
    assert "\n" not in str(raised.value)


def test_an_incomplete_tinyimagenet_c_is_refused(tiny, tmp_path, folder):
    del tiny["Tiny-ImageNet-C/fog/4/n01/test_0.JPEG"]
    folder(tmp_path, tiny)
    assert len(TinyImageNetC(corruption="fog", severity=3).test(tmp_path)) == COUNT
    with pytest.raises(FileNotFoundError, match=r"has 3 images fog/4/CLASS/IMAGE\.JPEG, but 4 are expected"):
        TinyImageNetC(corruption="fog").test(tmp_path)


def test_a_checksum_is_computed_once_for_a_file_that_stays_the_same(tmp_path, zipped, monkeypatch):
    path = zipped(tmp_path / "mnist_c.zip", MNIST_FILES)
    known(monkeypatch, MNISTC, path)
    calls = []
    digest_of = published_corruptions.files._digest_of
    monkeypatch.setattr(published_corruptions.files, "_digest_of", lambda *args: calls.append(args) or digest_of(*args))
    for _ in range(3):
        MNISTC(corruption="fog").test(tmp_path)
    assert len(calls) == 1
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="the SHA-256 is"):
        MNISTC(corruption="fog").test(tmp_path)


def test_data_sets_by_name():
    assert published_corruption("mnist-c", "fog") == MNISTC(corruption="fog")
    crop = Augmentation(crop=56)
    made = published_corruption("tinyimagenet-c", "fog", severity=2, augmentation=crop)
    assert made == TinyImageNetC(corruption="fog", severity=2, augmentation=crop)
    with pytest.raises(
        ValueError, match="no corrupted test set is called 'svhn-c'; there are mnist-c, cifar10-c, tiny"
    ):
        published_corruption("svhn-c", "fog")
    with pytest.raises(ValueError, match="severity is 2, but the images of mnist-c have one severity: leave it out"):
        published_corruption("mnist-c", "fog", severity=2)
