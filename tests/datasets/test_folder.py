"""Images of your own in a folder, tar or zip, and all their possible faults."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctbench.datasets import Folder

NAMES = ["train/dog/b.png", "train/cat/z.png", "train/dog/a.png", "test/cat/a.png", "test/dog/a.png"]


def colour(name: str) -> np.ndarray:
    return np.random.default_rng(NAMES.index(name)).integers(256, size=(3, 5, 3), dtype=np.uint8)


@pytest.fixture
def contents(png) -> dict[str, bytes]:
    return {name: png(colour(name)) for name in NAMES}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("prefix", ["", "./", "mine/"])
def test_every_packing(kind: str, prefix: str, contents, tmp_path: Path, folder, zipped, tarred):
    contents = {f"{prefix}{name}": content for name, content in contents.items()}
    contents |= {
        f"{prefix}README": b"hello",
        f"{prefix}train/list.txt": b"",
        f"{prefix}train/cat/.hidden": b"",
    }
    write = {"folder": folder, "zip": zipped}.get(kind, tarred)
    write(tmp_path / f"mine.{kind}", contents)
    data = Folder(path=f"mine.{kind}").load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    expected = ["train/cat/z.png", "train/dog/a.png", "train/dog/b.png"]
    for images, names in ((data.train, expected), (data.test, ["test/cat/a.png", "test/dog/a.png"])):
        for pixels, name in zip(images.inputs, names, strict=True):
            assert np.array_equal(pixels.numpy(), colour(name).transpose(2, 0, 1))
    assert data.mean is data.std is None


def test_the_root_comes_before_the_working_folder(contents, tmp_path: Path, folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder(tmp_path / "here", {f"mine/{name}": content for name, content in contents.items()}))
    assert len(Folder(path="mine").load(tmp_path / "elsewhere").train) == 3
    extra = {f"mine/{name}": content for name, content in contents.items()} | {
        "mine/test/cat/b.png": contents[NAMES[0]]
    }
    folder(tmp_path / "root", extra)
    assert len(Folder(path="mine").load(tmp_path / "root").test) == 3
    monkeypatch.setenv("CTBENCH_DATA", str(tmp_path / "root"))
    assert len(Folder(path="mine").load().test) == 3
    assert len(Folder(path=str(tmp_path / "here" / "mine")).load(tmp_path / "root").test) == 2


def test_grey_and_size(contents, tmp_path: Path, folder, png):
    contents["train/cat/z.png"] = png(np.full((9, 9, 3), 200, np.uint8))
    folder(tmp_path, contents)
    data = Folder(path=".", size=(4, 6), grey=True).load(tmp_path)
    assert data.input_shape == (1, 4, 6)
    assert data.train.inputs[0].unique().tolist() == [200]
    by_hand = Image.fromarray(colour("test/dog/a.png")).convert("L").resize((6, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(data.test.inputs[1, 0].numpy(), np.asarray(by_hand))


def test_grey_images_get_three_channels(contents, tmp_path: Path, folder, png):
    contents["train/cat/z.png"] = png(np.full((3, 5), 77, np.uint8))
    folder(tmp_path, contents)
    data = Folder(path=".").load(tmp_path)
    assert data.train.inputs[0].unique().tolist() == [77]
    assert data.input_shape == (3, 3, 5)


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((3, 5), 60_000, np.uint16)).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train/cat/z.png": b"text"},
            r"train/cat/z.png cannot be read as an image \(.*\); repair or remove it",
        ),
        ({"train/cat/z.png": b""}, "train/cat/z.png cannot be read"),
        ({"train/cat/z.png": "half"}, "train/cat/z.png cannot be read"),
        ({"train/cat/z.png": sixteen_bits()}, r"z.png cannot be read .*mode I;16, but 8 bits per channel"),
        (
            {"train/cat/more/z.png": b""},
            "more/z.png does not lie in a folder train/CLASS or test/CLASS; move or",
        ),
        (
            {"train/cow/z.png": "copy"},
            "only one of train and test has images of cow; both need the same classes",
        ),
        ({"test/dog/a.png": None}, "only one of train and test has images of dog"),
        ({"test/dog/a.png": None, "test/cat/a.png": None}, "has no images test/CLASS/IMAGE; add some"),
        (
            {"test/dog/a.png": "large"},
            r"cat/z.png is 3x5 pixels and .*test/dog/a.png is 8x9 \(height x width\); .* a size to resize to",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_what_is_wrong_is_named(kind: str, change, message: str, contents, tmp_path: Path, folder, tarred, png):
    whole = contents["train/dog/a.png"]
    special = {"half": whole[: len(whole) // 2], "copy": whole, "large": png(np.zeros((8, 9, 3), np.uint8))}
    for name, content in change.items():
        if content is None:
            del contents[name]
        else:
            contents[name] = special.get(content, content)
    (folder if kind == "folder" else tarred)(tmp_path / "mine", contents)
    with pytest.raises(ValueError, match=message) as error:
        Folder(path="mine").load(tmp_path)
    assert str(tmp_path / "mine") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_path_is_named(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=f"no mine.tar in {tmp_path} or in the working folder .*; give the path"
    ):
        Folder(path="mine.tar").load(tmp_path)


def test_photographs_in_a_tar(tmp_path: Path, tarred):
    root = Path(os.environ.get("CTBENCH_DATA", "."))
    whole = root / "cifar10-jpeg" / "cifar10-jpeg.tar.gz"
    if not whole.exists():
        pytest.skip("CTBENCH_DATA names no folder with cifar10-jpeg/cifar10-jpeg.tar.gz")
    with tarfile.open(whole) as archive:
        some = [member for member in archive if member.name.endswith(("00.jpg", "50.jpg"))]
        contents = {member.name: archive.extractfile(member).read() for member in some}
    tarred(tmp_path / "some.tar.gz", contents)
    data = Folder(path="some.tar.gz").load(tmp_path)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[:2] == ("airplane", "automobile")
    for images, part in ((data.train, "train"), (data.test, "test")):
        names = sorted(name for name in contents if name.startswith(part))
        assert len(names) >= 200
        assert images.labels.tolist() == [data.class_names.index(name.split("/")[1]) for name in names]
        for pixels, name in zip(images.inputs, names, strict=True):
            with Image.open(io.BytesIO(contents[name])) as image:
                assert np.array_equal(pixels.numpy(), np.asarray(image).transpose(2, 0, 1))
    mean = data.train.inputs.double().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.015)
