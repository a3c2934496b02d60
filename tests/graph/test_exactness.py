"""Torch rounds a sum or a product of constants exactly where whole numbers say so."""

import operator
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ctbench.graph.exactness import is_exact

OPERATIONS = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}
SPECIAL = [0.0, -0.0, 1.0, -3.0, 0.1, 1e-300, 1e300, 5e-324, 2.0**-1022, 2.0**500, 1 + 2.0**-52, 2.0**27 + 1]


def pairs() -> Tensor:
    """Special numbers, numbers of many sizes with 53 bits, and with few."""
    torch.manual_seed(0)
    full = torch.randn(400, 2, dtype=torch.float64) * 2.0 ** torch.randint(-40, 40, (400, 2))
    few = torch.randn(400, 2).double() * 2.0 ** torch.randint(-20, 20, (400, 2))
    special = torch.tensor(SPECIAL, dtype=torch.float64)
    return torch.cat([full, few, torch.cartesian_prod(special, special)])


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_says_exact_only_where_whole_numbers_agree(name):
    operation, said = OPERATIONS[name], 0
    for first, second in pairs():
        result = operation(first, second)
        exact = result.isfinite() and Fraction(result.item()) == operation(
            Fraction(first.item()), Fraction(second.item())
        )
        found = is_exact(name, (first, second), {}, result)
        assert exact or not found, (name, first, second)
        said += found
        ordinary = all(2.0**-400 < abs(each) < 2.0**400 for each in (first, second))
        assert found or not (exact and ordinary), (name, first, second)
    assert 300 < said < 900


def test_functions_that_choose_numbers_are_exact_in_double_precision():
    x = torch.rand(3, dtype=torch.float64)
    assert is_exact("sort", (x,), {}, tuple(x.sort()))
    assert is_exact(torch.maximum, (x, x), {}, x)
    assert is_exact("gt", (x, 0.5), {}, x > 0.5)
    assert is_exact("sum", (torch.arange(3),), {}, torch.arange(3).sum())
    assert is_exact("item", (x[0],), {}, x[0].item())


def clamp(x: Tensor) -> Tensor:
    """A function of somebody else."""
    return (x + 1e16) - 1e16


X, LARGE = torch.rand(3, dtype=torch.float64), torch.tensor([2**53 + 1])
ROUNDED = {
    "a division": ("normalize", (X,), {}, X / X.norm()),
    "a factor": ("add", (X, X), {"alpha": 0.1}, X + 0.1 * X),
    "single precision": ("add", (X.float(), X.float()), {}, X.float() + X.float()),
    "a cast": ("clamp", (X,), {"min": 0.0}, X.float()),
    "decimals": (torch.round, (X,), {"decimals": 1}, X.round(decimals=1)),
    "another function of that name": (clamp, (X,), {}, clamp(X)),
    "a large whole number": ("mul", (X * 0, 2**53 + 1), {}, X * 0 + (2**53 + 1)),
    "large whole numbers": (torch.cat, ([LARGE, X],), {}, torch.cat([LARGE, X])),
    "complex numbers": ("abs", (torch.complex(X, X),), {}, torch.complex(X, X).abs()),
    "single precision by default": (torch.where, (X > 0.5, 0.1, 0.7), {}, torch.where(X > 0.5, 0.1, 0.7)),
}


@pytest.mark.parametrize("call", ROUNDED.values(), ids=ROUNDED)
def test_what_may_be_rounded_is_not_exact(call):
    assert not is_exact(*call)
