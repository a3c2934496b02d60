"""Training on crops: images are cut to the size of test images, which show the middle."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from ctbench.datasets import Augmentation, Data, Digits, stratified_split
from ctbench.methods.base import Batch, RobustLoss
from ctbench.methods.standard import Standard
from ctbench.training import load_run, train

SEEN = list[Batch]()


@dataclass(frozen=True, kw_only=True)
class Seen(Standard):
    """Standard training, which notes its batches."""

    name: ClassVar[str] = "seen-crops"

    def __call__(self, net, batch: Batch) -> RobustLoss:
        SEEN.append(batch)
        return super().__call__(net, batch)


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


def test_training_images_are_cut_to_the_size_of_test_images(tiny, tmp_path):
    dataset = Digits(augmentation=Augmentation(crop=6))
    recipe = tiny(dataset=dataset, method=Seen(), shi=0.0, validation=0.2, epochs=1, precise_bn=True)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    assert run.model(dataset.load().test[:4][0]).shape == (4, 10)
    assert {tuple(batch.x.shape[1:]) for batch in SEEN} == {(1, 6, 6)}
    held_out = stratified_split(dataset.load().train, fraction=0.2, seed=recipe.seed)[1]
    shown = torch.cat([batch.x for batch in SEEN[-math.ceil(len(held_out) / recipe.batch_size) :]])
    assert torch.equal(shown, held_out[:][0][:, :, 1:7, 1:7])  # the validation sees the middle
    assert load_run(tmp_path / "run").recipe == recipe


@dataclass(frozen=True, kw_only=True)
class SmallDigits(Digits):
    """Digits whose test images are smaller, whatever training cuts."""

    name: ClassVar[str] = "small-digits"

    def load(self, root: Path | None = None) -> Data:
        data = Digits().load(root)
        return replace(data, test=replace(data.test, inputs=data.test.inputs[:, :, 1:7, 1:7]))


@pytest.mark.parametrize("crop", [None, 5])
def test_a_crop_of_another_size_is_refused(tiny, tmp_path, crop):
    recipe = tiny(dataset=SmallDigits(augmentation=Augmentation(crop=crop)))
    message = r"training inputs of shape \(1, \d, \d\), test inputs have \(1, 6, 6\): set crop"
    with pytest.raises(ValueError, match=message):
        train(recipe, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_smaller_crop_is_rehearsed(tiny, tmp_path):
    recipe = tiny(dataset=Digits(augmentation=Augmentation(crop=6)), epochs=1, precision="bfloat16")
    assert train(recipe, out=tmp_path / "run", quiet=True).recipe == recipe
