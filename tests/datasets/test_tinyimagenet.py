"""TinyImageNet from its folder and its zip, with three classes of two images."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctbench.datasets import Augmentation, TinyImageNet, tinyimagenet
from ctbench.datasets.files import Remote

WNIDS = ["n03", "n01", "n02"]


def colour(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(256, size=(4, 6, 3), dtype=np.uint8)


def grey_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 4), 128).save(file, format="JPEG")
    return file.getvalue()


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch, png) -> dict[str, bytes]:
    """The files of a small TinyImageNet. All pictures except one are PNG, so that values can be compared exactly."""
    monkeypatch.setattr(tinyimagenet, "TRAIN_IMAGES", 2)
    top = "tiny-imagenet-200"
    files = {f"{top}/wnids.txt": "\n".join(WNIDS).encode(), f"{top}/words.txt": b"n01\tgoldfish"}
    for wnid in WNIDS:
        files[f"{top}/train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1"
        for number in (0, 1):
            files[f"{top}/train/{wnid}/images/{wnid}_{number}.JPEG"] = png(colour(int(wnid[1:]) * 10 + number))
    files[f"{top}/train/n02/images/n02_1.JPEG"] = grey_jpeg()
    files[f"{top}/val/images/val_1.JPEG"] = png(colour(101))
    files[f"{top}/val/images/val_0.JPEG"] = png(colour(100))
    files[f"{top}/val/val_annotations.txt"] = b"val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n"
    files[f"{top}/test/images/test_0.JPEG"] = b"not looked at"
    return files


@pytest.mark.parametrize("place", ["tinyimagenet", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_folder_and_zip(
    packed: bool, place: str, contents, tmp_path: Path, folder, zipped, monkeypatch: pytest.MonkeyPatch
):
    if packed:
        path = zipped(tmp_path / place / "tiny-imagenet-200.zip", contents)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(tinyimagenet, "ARCHIVE", Remote(name=path.name, sha256=sha256, mirrors=()))
    else:
        folder(tmp_path / place, contents)
    data = TinyImageNet().load(tmp_path)
    assert data.class_names == ("n01", "n02", "n03")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [1, 0]
    assert data.train.inputs.dtype.itemsize == 1
    for position, number in ((0, 10), (1, 11), (2, 20), (4, 30), (5, 31)):
        assert np.array_equal(data.train.inputs[position].numpy(), colour(number).transpose(2, 0, 1))
    assert data.train.inputs[3].unique().tolist() == [128], "a grey picture has three equal channels"
    for position in (0, 1):
        assert np.array_equal(data.test.inputs[position].numpy(), colour(100 + position).transpose(2, 0, 1))
    assert data.mean == (0.4802, 0.4481, 0.3975)
    assert data.std == (0.2302, 0.2265, 0.2262)


def test_test_images_are_the_middle_where_training_cuts_a_square(contents, tmp_path: Path, folder):
    folder(tmp_path, contents)
    data = TinyImageNet(augmentation=Augmentation(crop=2)).load(tmp_path)
    assert data.input_shape == (3, 2, 2)
    assert tuple(data.train.inputs.shape[1:]) == (3, 4, 6)
    for position in (0, 1):
        assert np.array_equal(
            data.test.inputs[position].numpy(), colour(100 + position).transpose(2, 0, 1)[:, 1:3, 2:4]
        )


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (
            "wnids.txt",
            None,
            FileNotFoundError,
            "tiny-imagenet-200 has no wnids.txt, or an empty one; get the whole",
        ),
        (
            "wnids.txt",
            b"n01\nn02",
            ValueError,
            "has 2 training images of n03, but 2 of each class that wnids.txt",
        ),
        ("wnids.txt", b"n01\nn02\nn03\nn04", ValueError, "has 0 training images of n04"),
        (
            "train/n01/images/n01_1.JPEG",
            None,
            ValueError,
            "has 1 training images of n01, but 2 of each class",
        ),
        ("train/n01/images/n01_1.JPEG", b"x", ValueError, "n01_1.JPEG cannot be read as an image"),
        ("val/val_annotations.txt", None, FileNotFoundError, "has no val_annotations.txt"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn02", ValueError, "2 images in val/images and 1 lines"),
        (
            "val/val_annotations.txt",
            b"val_0.JPEG\tn02\nval_1.JPEG\tn09",
            ValueError,
            "2 lines .* but 1 of them match",
        ),
        ("val/val_annotations.txt", b"val_0.JPEG\tn02\nval_1.JPEG", ValueError, "2 lines .* but 1 of them match"),
        (
            "val/images/val_0.JPEG",
            None,
            ValueError,
            "has 1 images in val/images and 2 lines in val_annotations.txt",
        ),
    ],
)
def test_what_is_missing_is_named(name, content, error, message: str, contents, tmp_path: Path, folder):
    key = f"tiny-imagenet-200/{name}"
    del contents[key]
    if content is not None:
        contents[key] = content
    folder(tmp_path, contents)
    with pytest.raises(error, match=message):
        TinyImageNet().load(tmp_path)


def test_another_zip_is_refused(tmp_path: Path, zipped):
    zipped(tmp_path / "tiny-imagenet-200.zip", {"a": b""})
    with pytest.raises(ValueError, match=r"the SHA-256 is .*, expected 6198c8ae"):
        TinyImageNet().load(tmp_path)
