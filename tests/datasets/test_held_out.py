"""Data sets without test images."""

import dataclasses

import pytest
import torch

from ctbench.datasets import Augmentation, Digits, HeldOut, Withheld, WithheldError, datasets
from ctbench.recipes import recipe
from ctbench.training import Recipe


def test_training_and_held_out_images_are_the_training_set():
    held_out, whole = HeldOut(base=Digits(), share=0.2, seed=1), Digits().load()
    data, images = held_out.load(), held_out.validation()
    assert (len(data.train), len(images)) == (1438 - 287, 287)
    both = torch.cat([data.train.inputs, images.inputs]).flatten(1)
    assert torch.equal(both.sort(0).values, whole.train.inputs.flatten(1).sort(0).values)
    assert not torch.equal(images.inputs, HeldOut(base=Digits(), share=0.2, seed=2).validation().inputs)
    assert torch.equal(images.inputs, HeldOut(base=Digits(), share=0.2, seed=1).validation().inputs)


READS = {
    "all": lambda test: test[:],
    "a batch": lambda test: test.batch(slice(0, 2), torch.device("cpu")),
    "their number": len,
    "a part": lambda test: test.subset([0]),
    "on a device": lambda test: test.to("cpu"),
    "one by one": list,
}


@pytest.mark.parametrize("read", READS)
def test_test_images_cannot_be_read(read):
    data = HeldOut(base=Digits(), share=0.2).load()
    with pytest.raises(WithheldError, match="the test images are withheld"):
        READS[read](data.test)
    assert isinstance(data.test, Withheld)
    assert not data.test.inputs.numel()
    assert not data.test.labels.numel()
    assert data.input_shape == (1, 8, 8)


def test_a_recipe_holds_it_and_nobody_chooses_it_by_name():
    made = dataclasses.replace(recipe("digits_ibp"), dataset=HeldOut(base=Digits(), share=0.2, seed=1))
    assert Recipe.from_json(made.to_json()) == made
    assert HeldOut.name not in datasets()
    assert made.dataset.title == "digits-validation"


def test_held_out_images_are_cropped_like_test_images():
    base = Digits(augmentation=Augmentation(crop=6))
    held_out = HeldOut(base=base, share=0.2)
    assert tuple(held_out.validation().inputs.shape[1:]) == held_out.load().input_shape == (1, 6, 6)
    assert held_out.augmentation == base.augmentation
    with pytest.raises(ValueError, match="set that of the base"):
        HeldOut(base=base, share=0.2, augmentation=Augmentation(flip=True))
