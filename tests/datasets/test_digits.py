"""Digits: the fixed division and its values."""

import torch

from ctbench.datasets import Digits


def test_the_division_is_fixed():
    data = Digits().load()
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.input_shape == (1, 8, 8)
    assert data.train.labels.bincount().tolist() == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
    assert data.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert data.train.labels[:23].tolist() == [*range(10), *range(10), 0, 9, 5]
    assert data.test.labels[:10].tolist() == [*range(10)]
    assert data.mean is data.std is None


def test_pixels_are_sixteenths_of_the_published_ones():
    data = Digits().load()
    x, y = data.train[:1]
    assert (x * 16).to(int).flatten().tolist()[:24] == [
        *(0, 0, 5, 13, 9, 1, 0, 0),
        *(0, 0, 13, 15, 10, 15, 5, 0),
        *(0, 3, 15, 2, 0, 11, 8, 0),
    ]
    assert y.item() == 0
    both = torch.cat([data.train.inputs, data.test.inputs])
    assert both.dtype == torch.float32
    assert (both.min(), both.max()) == (0, 1)
    assert both.sum().item() * 16 == 561718
