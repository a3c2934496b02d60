"""Launches and waits are counted as such."""

import pytest
import torch
from benchmarks._counting import counted

from ctbench import waiting

X = torch.arange(6.0).view(2, 3)
WAITS = {
    "item": lambda: X.sum().item(),
    "bool": lambda: bool((X > 0).any()),
    "float": lambda: float(X[0, 0]),
    "equal": lambda: torch.equal(X, X),
    "tolist": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "cpu": lambda: X.cpu(),
    "nonzero": lambda: X.nonzero(),
    "mask": lambda: X[X > 1],
    "unique": lambda: X.unique(),
    "bincount": lambda: torch.arange(3).bincount(),
    "from Python": lambda: X.new_tensor([1.0, 2.0]),
    "to another device": lambda: X.to("meta"),
}
NO_WAITS = {
    "index": lambda: X[torch.arange(2).flip(0)],
    "where": lambda: torch.where(X > 1, X, 0.0),
    "masked_fill": lambda: X.masked_fill(X > 1, 0.0),
    "repeat": lambda: X.repeat_interleave(2),
    "cast": lambda: X.double().to(torch.float32),
    "non_blocking": lambda: X.to("meta", non_blocking=True),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_look_at_values_waits(name):
    assert counted(WAITS[name]).waits == 1


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_stays_on_the_device_does_not(name):
    assert counted(NO_WAITS[name]).waits == 0


def test_launches_are_operators_that_compute_also_backward():
    x = X.clone().requires_grad_()
    assert dict(counted(lambda: X.view(3, 2).T.unsqueeze(0)).operators) == {}
    assert dict(counted(lambda: (X + X) * X).operators) == {"add": 1, "mul": 1}
    assert counted(lambda: (x * x).sum().backward()).operators["mul"] == 3


def test_the_library_is_counted_as_on_an_accelerator():
    assert waiting.is_free(X)
    seen = []
    counted(lambda: seen.append(waiting.is_free(X)))
    assert seen == [False]
    assert waiting.is_free(X)
