"""Digits: the fixed division and its values."""

import importlib

import pytest
import torch

from ctbench.datasets import Digits


def test_the_division_is_fixed():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    data = Digits().load()
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.input_shape == (1, 8, 8)
    assert data.train.labels.bincount().tolist() == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
    assert data.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert data.train.labels[:23].tolist() == [*range(10), *range(10), 0, 9, 5]
    assert data.test.labels[:10].tolist() == [*range(10)]
    assert data.mean is data.std is None


def test_pixels_are_sixteenths():
    sklearn = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    data = Digits().load()
    x, y = data.train[:1]
    assert (x * 16).flatten().tolist() == sklearn.load_digits().data[0].tolist()
    assert y.item() == 0
    both = torch.cat([data.train.pixels, data.test.pixels])
    assert both.min() == 0
    assert both.max() == 1
    assert both.sum() * 16 == sklearn.load_digits().data.sum()


def test_scikit_learn_is_missing(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="not installed: run pip install scikit-learn"):
        Digits().load()
