"""Accuracies on corrupted images, of networks whose answers are known."""

import pytest
import torch
from torch import Tensor, nn

from ctbench.analyses.generalisation import CorruptedSet, accuracies, generalisation, our_sets, published_sets
from ctbench.corruptions import corruptions
from ctbench.datasets import CIFAR10C, MNISTC, Augmentation, Images, corrupt


class Bright(nn.Module):
    """Answers 1 where the mean of the image is above a half; the dropout changes the answer in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([-0.5]))
        self.drop = nn.Dropout(p=1.0)

    def forward(self, x: Tensor) -> Tensor:
        above = self.drop(x.flatten(1).mean(1, keepdim=True)) + self.bias
        return torch.cat([-above, above], dim=1)


@pytest.fixture
def clean() -> Images:
    """Four dark images of class 0, and four bright ones of class 1."""
    pixels = torch.tensor([0.1] * 4 + [0.9] * 4).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return Images(pixels, torch.tensor([0] * 4 + [1] * 4))


def test_corrupted_images_of_another_shape_are_refused(clean):
    small = CorruptedSet("fog", 1, lambda: Images(clean.inputs[..., :4], clean.labels))
    with pytest.raises(ValueError, match=r"of fog have shape \[3, 8, 4\], and the clean ones \[3, 8, 8\]"):
        generalisation(Bright(), clean, [small])


def test_accuracies_over_the_clean_accuracy(clean):
    sets = our_sets(clean, ["brightness", "stripe"], [1, 5])
    found = generalisation(Bright(), clean, sets, batch_size=3)
    assert found.clean_accuracy == 1
    assert found.corruptions == ("brightness", "stripe")
    assert found.ratio("brightness", 1) == 1  # 0.1 + 0.1 is still dark
    assert found.ratio("brightness", 5) == 0.5  # 0.1 + 0.5 is not
    assert found.ratio("brightness") == 0.75
    assert found.mean(5) == (0.5 + found.ratio("stripe", 5)) / 2


def test_the_network_is_taken_as_at_test_time_and_not_changed(clean):
    model = Bright().train()
    assert generalisation(model, clean, our_sets(clean, ["fog"], [1])).clean_accuracy == 1
    assert model.training
    assert model.drop.training


def test_all_corruptions_in_all_severities(clean):
    found = generalisation(Bright(), clean, our_sets(clean))
    assert set(found.corruptions) == set(corruptions())
    assert found.severities == (1, 2, 3, 4, 5)
    assert len(found.records) == 1 + 5 * len(found.corruptions)
    assert all(record.samples == 8 for record in found.records)


def test_sets_are_seeded(clean):
    for seed in (0, 1):
        (one,) = our_sets(clean, ["impulse_noise"], [2], seed=seed)
        assert torch.equal(one.images().inputs, corrupt(clean, type_of("impulse_noise")(severity=2), seed=seed).inputs)


def type_of(name: str):
    return corruptions()[name]


def test_sets_that_are_done_are_not_made(clean):
    def never() -> Images:
        raise AssertionError("this set is done")

    sets = [CorruptedSet("fog", 1, never), CorruptedSet("fog", 2, lambda: clean)]
    records = list(accuracies(Bright(), clean, sets, done={("fog", 1), ("clean", None)}))
    assert [record.key for record in records] == [("fog", 2)]


def test_published_sets_are_read_when_they_are_needed(clean, monkeypatch):
    read = []

    def test(dataset: MNISTC, root: None) -> Images:
        read.append(dataset)
        return clean

    monkeypatch.setattr(MNISTC, "test", test)
    monkeypatch.setattr(CIFAR10C, "test", test)
    sets = list(published_sets("mnist-c", samples=6))
    assert [one.corruption for one in sets] == sorted(corruptions())
    assert {one.severity for one in sets} == {None}
    assert not read
    assert len(sets[0].images()) == 6
    assert read == [MNISTC(corruption="brightness", augmentation=Augmentation())]
    crop = Augmentation(crop=4)
    (one,) = published_sets("cifar10-c", ["snow"], [4], augmentation=crop)
    assert one.key == ("snow", 4)
    assert len(one.images()) == 8
    assert read[1] == CIFAR10C(corruption="snow", severity=4, augmentation=crop)
    assert len(list(published_sets("cifar10-c"))) == 19 * 5
    with pytest.raises(ValueError, match="no corrupted test set is called 'x-c'"):
        list(published_sets("x-c"))


def test_unknown_names_are_refused(clean):
    with pytest.raises(ValueError, match="no corruption is called 'snow'"):
        generalisation(Bright(), clean, our_sets(clean, ["snow"]))
    with pytest.raises(ValueError, match="there must be a record of the clean images, and one of a corruption"):
        generalisation(Bright(), clean, [])
