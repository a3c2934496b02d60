"""Data sets with corrupted test images."""

from dataclasses import replace

import pytest
import torch

from ctbench.corruptions import corruption
from ctbench.corruptions.overlays import Fog
from ctbench.datasets import MNIST, Augmentation, Corrupted, Digits, Separable, TinyImageNet, corrupt, corrupted
from ctbench.datasets.base import Images
from ctbench.recipes import recipe
from ctbench.training import Recipe, codec


def test_only_test_images_are_corrupted():
    clean, made = Digits().load(), corrupted(Digits(), "fog", severity=4, seed=2).load()
    assert torch.equal(made.train.inputs, clean.train.inputs)
    assert torch.equal(made.test.labels, clean.test.labels)
    assert torch.equal(made.test.inputs, corruption("fog", 4)(clean.test.inputs, seed=2))
    assert (made.class_names, made.mean) == (clean.class_names, clean.mean)


def test_bytes_stay_bytes_and_floats_floats():
    pixels = torch.randint(256, (5, 3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(5))
    changed = corrupt(images, corruption("stripe", 5))
    assert changed.inputs.dtype == torch.uint8
    assert set(torch.where(changed.inputs == pixels, 0, changed.inputs.int() + pixels).unique().tolist()) == {0, 255}
    assert corrupt(replace(images, inputs=pixels / 255), corruption("fog")).inputs.dtype == torch.float32


def test_augmentation_and_crop_are_those_of_the_base():
    base = TinyImageNet(augmentation=Augmentation(flip=True, crop=56))
    assert corrupted(base, "fog").augmentation == base.augmentation
    assert Corrupted(base=base, corruption=Fog(), augmentation=base.augmentation).augmentation == base.augmentation
    with pytest.raises(ValueError, match="set that of the base, tinyimagenet, instead"):
        Corrupted(base=base, corruption=Fog(), augmentation=Augmentation(flip=True))
    data = corrupted(Digits(augmentation=Augmentation(crop=6)), "stripe", severity=5).load()
    assert data.test.inputs.shape[1:] == (1, 6, 6)
    assert data.train.inputs.shape[1:] == (1, 8, 8)


def test_titles_tell_test_sets_apart():
    assert MNIST().title == "mnist"
    assert corrupted(MNIST(), "fog", severity=2).title == "mnist+fog-2"


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="the examples are Vectors, not images"):
        corrupted(Separable(dimension=3, test_samples=5), "fog").load()


def test_it_stands_in_a_recipe():
    made = recipe("digits_ibp").with_changes(
        ["dataset=corrupted", "dataset.base=digits", "dataset.corruption=fog", "dataset.corruption.severity=4"]
    )
    assert made.dataset == corrupted(Digits(), "fog", severity=4)
    assert Recipe.from_json(made.to_json()) == made


def test_a_recipe_keeps_the_augmentation_of_the_base():
    plain = recipe("cifar10_2_ibp")
    changed = plain.with_changes(["dataset=corrupted", "dataset.base=cifar10", "dataset.corruption=zigzag"])
    assert changed.dataset.augmentation == plain.dataset.augmentation != Augmentation()
    assert codec.decode(Recipe, codec.encode(changed)) == changed
