"""Flips and crops against the same done image by image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.datasets import Augmentation


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(64, 3, 5, 7, generator=seeded(1))


MODES = {"edge": "replicate", "zero": "constant"}  # by the names of torch


def crops(image: Tensor, padding: int, kind: str = "edge") -> list[Tensor]:
    """Every crop of one image [C, H, W], by torch's own padding."""
    _, height, width = image.shape
    padded = F.pad(image[None], (padding,) * 4, mode=MODES[kind])[0]
    places = range(2 * padding + 1)
    return [padded[:, top : top + height, left : left + width] for top in places for left in places]


def test_no_augmentation_is_the_same_tensor_and_draws_nothing(x: Tensor):
    generator = seeded()
    state = generator.get_state()
    assert Augmentation()(x, generator) is x
    assert torch.equal(generator.get_state(), state)


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others(x: Tensor):
    y = Augmentation(flip=True)(x, seeded())
    same = [torch.equal(a, b) for a, b in zip(x, y, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(x, y, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 <= sum(mirrored) <= 48


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("padding", [1, 2, 6])
def test_a_crop_is_one_of_the_crops_of_the_padded_image(padding: int, kind: str, x: Tensor):
    y = Augmentation(crop_padding=padding, padding=kind)(x, seeded())
    chosen = [
        [number for number, crop in enumerate(crops(a, padding, kind)) if torch.equal(crop, b)]
        for a, b in zip(x, y, strict=True)
    ]
    assert all(chosen), "an image that is no crop of its source"
    places = (2 * padding + 1) ** 2
    assert len({numbers[0] for numbers in chosen}) > min(places, 64) // 2, "crops hardly differ"


def test_every_place_of_a_crop_is_reached():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(400, 1, 3, 3) / 9
    y = Augmentation(crop_padding=1)(image, seeded())
    centres, counts = y[:, 0, 1, 1].unique(return_counts=True)
    assert torch.equal(centres, torch.arange(9.0) / 9)
    assert counts.min() > 20


@pytest.mark.parametrize("kind", MODES)
def test_flip_and_crop_together_equal_a_loop_over_images(kind: str, x: Tensor):
    y = Augmentation(flip=True, crop_padding=2, padding=kind)(x, seeded(5))
    generator = seeded(5)
    shifts = torch.randint(-2, 3, (2, 64, 1), generator=generator)[:, :, 0] + 2
    coins = torch.randint(2, (64, 1), generator=generator)[:, 0]
    for number in range(64):
        crop = crops(x[number], 2, kind)[int(shifts[0, number]) * 5 + int(shifts[1, number])]
        assert torch.equal(y[number], crop.flip(-1) if coins[number] else crop)


def test_it_is_a_function_of_the_generator(x: Tensor):
    augment = Augmentation(flip=True, crop_padding=2)
    state = torch.get_rng_state()
    assert torch.equal(augment(x, seeded(3)), augment(x, seeded(3)))
    assert not torch.equal(augment(x, seeded(3)), augment(x, seeded(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_bytes_stay_bytes():
    x = torch.randint(256, (4, 1, 6, 6), dtype=torch.uint8, generator=seeded())
    assert Augmentation(flip=True, crop_padding=1)(x, seeded()).dtype == torch.uint8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_change_the_result(x: Tensor):
    augment = Augmentation(flip=True, crop_padding=2)
    assert torch.equal(augment(x.cuda(), seeded(3)).cpu(), augment(x, seeded(3)))


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match=r"crop_padding is -1; give 0 \(no crop\) or more pixels"):
        Augmentation(crop_padding=-1)
    with pytest.raises(ValueError, match="padding is 'reflect'; choose from edge, zero"):
        Augmentation(crop_padding=1, padding="reflect")


def test_a_smaller_crop_is_one_of_those_inside_the_image(x: Tensor):
    y = Augmentation(crop=4)(x, seeded())
    assert y.shape == (64, 3, 4, 4)
    corners = [(top, left) for top in range(2) for left in range(4)]  # of squares of 4 in images of 5 x 7
    chosen = [
        [at for at in corners if torch.equal(a[:, at[0] : at[0] + 4, at[1] : at[1] + 4], b)]
        for a, b in zip(x, y, strict=True)
    ]
    assert all(chosen)
    assert {at for places in chosen for at in places} == set(corners)


def test_a_smaller_crop_of_a_padded_image_may_begin_before_it():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(400, 1, 3, 3) / 9
    y = Augmentation(crop=2, crop_padding=1)(image, seeded())
    assert (y[:, 0] == 0).flatten(1).all(1).any(), "padded, the first pixel fills a crop"
    assert (y[:, 0] == 8 / 9).flatten(1).all(1).any()


def test_the_center_is_what_a_crop_is_cut_to(x: Tensor):
    augment = Augmentation(flip=True, crop=3)
    assert torch.equal(augment.center(x), x[:, :, 1:4, 2:5])
    assert augment.shape((3, 5, 7)) == (3, 3, 3)
    assert torch.equal(Augmentation(crop=4).center(x), x[:, :, :4, 1:5])  # of an odd rest, less lies before it
    assert Augmentation(flip=True).center(x) is x
    assert Augmentation().shape((12,)) == (12,)


@pytest.mark.parametrize("shape", [(3, 5, 7), (12,)])
def test_a_crop_that_does_not_fit_is_refused(shape: tuple[int, ...]):
    augment, x = Augmentation(crop=6), torch.rand(2, *shape)
    for refused in (lambda: augment.shape(shape), lambda: augment.center(x)):
        with pytest.raises(ValueError, match=r"crop is 6, and inputs have shape .*; give a side that fits"):
            refused()
    with pytest.raises(ValueError, match="crop is 0; give the pixels of a side"):
        Augmentation(crop=0)


@pytest.mark.parametrize("augment", [Augmentation(flip=True), Augmentation(crop_padding=1), Augmentation(crop=2)])
def test_vectors_are_refused(augment: Augmentation):
    with pytest.raises(ValueError, match=r"inputs of shape \[12\] cannot be flipped or cut: give images \[C, H, W\]"):
        augment(torch.rand(2, 12), seeded())
