"""Images, Data, split, and the rules for every data set."""

import pytest
import torch
from tests.kinds import ours

from ctbench.corruptions.overlays import Fog
from ctbench.datasets import (
    CIFAR10,
    CIFAR10C,
    MNIST,
    MNISTC,
    Augmentation,
    Corrupted,
    Data,
    Digits,
    Folder,
    Images,
    Separable,
    Spheres,
    TinyImageNet,
    TinyImageNetC,
    Vectors,
    datasets,
    stratified_split,
)
from ctbench.members import required_fields


def images(count: int = 6, classes: int = 3, channels: int = 1) -> Images:
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 2, 2).contiguous()
    return Images(pixels, torch.arange(count) % classes)


def test_the_package_is_walked():
    assert ours(datasets()) == {
        "cifar10": CIFAR10,
        "cifar10-c": CIFAR10C,
        "corrupted": Corrupted,
        "digits": Digits,
        "folder": Folder,
        "mnist": MNIST,
        "mnist-c": MNISTC,
        "separable": Separable,
        "spheres": Spheres,
        "tinyimagenet": TinyImageNet,
        "tinyimagenet-c": TinyImageNetC,
    }


@pytest.mark.parametrize(
    "dataset",
    [
        Folder(path="x", size=(3, 4)),
        MNISTC(corruption="fog"),
        CIFAR10C(corruption="fog", severity=2),
        TinyImageNetC(corruption="fog"),
        Corrupted(base=CIFAR10(), corruption=Fog(severity=1), seed=3),
        *(kind() for kind in ours(datasets()).values() if not required_fields(kind)),
    ],
)
def test_every_data_set_is_a_value(dataset):
    assert eval(repr(dataset)) == dataset
    assert hash(dataset) == hash(eval(repr(dataset)))


def test_augmentation_of_the_papers():
    assert MNIST().augmentation == Digits().augmentation == Augmentation()
    assert CIFAR10().augmentation == Augmentation(flip=True, crop_padding=2)
    assert TinyImageNet().augmentation == Augmentation(flip=True, crop_padding=4)
    assert CIFAR10(augmentation=Augmentation()).augmentation == Augmentation()


@pytest.mark.parametrize(
    ("index", "wanted"), [(torch.tensor([3, 1]), [3, 1]), ([3, 1], [3, 1]), (slice(1, 4, 2), [1, 3])]
)
def test_a_batch_is_float32_in_the_unit_interval(index, wanted: list[int]):
    x, y = images()[index]
    assert x.dtype == torch.float32
    assert x.shape == (2, 1, 2, 2)
    assert x[:, 0, 0, 0].tolist() == pytest.approx([value / 255 for value in wanted])
    assert y.tolist() == [value % 3 for value in wanted]


def test_the_brightest_byte_is_one():
    x, _ = Images(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([0]))[:]
    assert x.item() == 1.0


def test_floating_pixels_keep_their_values():
    x, _ = Images(torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0]))[[0]]
    assert x.dtype == torch.float32
    assert x.item() == 0.5


def test_vectors_of_any_range_keep_their_type():
    part = Vectors(torch.tensor([[-3.0, 7.0], [0.5, 2.0]], dtype=torch.float64), torch.tensor([0, 1])).subset([1])
    assert (type(part), part.inputs.dtype) == (Vectors, torch.float64)
    x, y = part.to("cpu")[:]
    assert (x.dtype, x.tolist(), y.tolist()) == (torch.float32, [[0.5, 2.0]], [1])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 1, 4, 4), r"vectors have shape \[2, 1, 4, 4\]; expected \[N, d\]"),
        (torch.zeros(2, 0), r"vectors have shape \[2, 0\]"),
        (torch.zeros(2, 3, dtype=torch.uint8), "vectors of torch.uint8; give finite floating point"),
        (torch.tensor([[0.0], [torch.nan]]), "give finite floating point"),
        (torch.zeros(3, 1), r"3 inputs have labels of shape \[2\]"),
    ],
)
def test_vectors_are_checked(inputs, message):
    with pytest.raises(ValueError, match=message):
        Vectors(inputs, torch.tensor([0, 1]))


def test_subset_and_to_keep_bytes():
    part = images().subset([4, 5]).to("cpu")
    assert part.inputs.dtype == torch.uint8
    assert part.inputs[:, 0, 0, 0].tolist() == [4, 5]
    assert part.labels.tolist() == [1, 2]
    assert len(part) == 2


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2).long(), r"shape \[2, 4, 4\]; expected \[N, C, H, W\]"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0).long(), r"shape \[0, 1, 4, 4\]"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), r"2 inputs have labels of shape \[3\]"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), "labels are torch.float32; convert them to torch.int64"),
        (torch.full((1, 1, 1, 1), 1.5), torch.zeros(1).long(), r"pixels lie in \[1.5, 1.5\]; scale them"),
        (torch.full((1, 1, 1, 1), -0.5), torch.zeros(1).long(), "pixels lie in"),
        (torch.full((1, 1, 1, 1), torch.nan), torch.zeros(1).long(), "pixels lie in"),
        (
            torch.zeros(1, 1, 1, 1, dtype=torch.int32),
            torch.zeros(1).long(),
            "pixels are torch.int32; give torch.uint8",
        ),
    ],
)
def test_images_are_checked(pixels, labels, message: str):
    with pytest.raises(ValueError, match=message):
        Images(pixels, labels)


def test_data_knows_its_shape():
    data = Data(images(), images(3), ("a", "b", "c"), mean=(0.5,), std=(0.25,))
    assert data.input_shape == (1, 2, 2)
    assert data.classes == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"class_names": ("a", "b")},
            "label 2 of training example 2 is not the number of a class; labels of 2 classes run from 0 to 1",
        ),
        (
            {"test": Images(torch.zeros(1, 1, 2, 2), torch.tensor([-1]))},
            "label -1 of test example 0 is not the number of a class",
        ),
        (
            {"test": Images(torch.zeros(1, 1, 2, 3), torch.tensor([0]))},
            r"\(1, 2, 2\) and test inputs \(1, 2, 3\)",
        ),
        (
            {"test": Images(torch.zeros(1, 3, 1, 1), torch.tensor([0]))},  # smaller, but in colour
            r"\(1, 2, 2\) and test inputs \(3, 1, 1\)",
        ),
        ({"mean": (0.5,)}, r"mean is \(0.5,\) and std is None"),
        ({"std": (0.5,)}, r"mean is None and std is \(0.5,\)"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "for images of 1 channels; give one value per channel"),
    ],
)
def test_data_are_checked(fields, message: str):
    with pytest.raises(ValueError, match=message):
        Data(**{"train": images(), "test": images(3), "class_names": ("a", "b", "c"), **fields})


def test_split_is_stratified_complete_and_ordered():
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 11)
    everything = Images(torch.arange(151, dtype=torch.uint8).view(-1, 1, 1, 1), labels)
    train, validation = stratified_split(everything, fraction=0.1, seed=0)
    assert validation.labels.bincount().tolist() == [10, 4, 1]
    assert train.labels.bincount().tolist() == [90, 36, 10]
    numbers = [part.inputs.flatten().tolist() for part in (train, validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(151))
    assert all(part == sorted(part) for part in numbers)
    assert numbers[1] != list(range(10)), "the first of a class are not a random choice"


def test_split_is_a_function_of_the_seed():
    everything = images(200, classes=4)
    state = torch.get_rng_state()
    choices = [
        stratified_split(everything, fraction=0.2, seed=seed)[1].inputs[:, 0, 0, 0].tolist() for seed in (1, 1, 2)
    ]
    assert choices[0] == choices[1] != choices[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_split_wants_a_share(fraction: float):
    with pytest.raises(ValueError, match=f"fraction is {fraction}; give a share between 0 and 1"):
        stratified_split(images(), fraction=fraction, seed=0)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_leaves_no_part_empty(fraction: float):
    with pytest.raises(ValueError, match=f"a fraction of {fraction} of 6 examples leaves one part empty"):
        stratified_split(images(), fraction=fraction, seed=0)
