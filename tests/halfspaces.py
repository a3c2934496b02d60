"""Properties about boxes of a few inputs, and networks for them."""

import torch
from torch import Tensor, nn

from ctbench.verify import (
    Bound,
    Falsify,
)
from ctbench.vnnlib import Case, Halfspaces, Property

STAGES = (Bound(domain="interval"), Falsify(), Bound(domain="crown"))


def tensor(*numbers: object) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def halfspaces(*rows: tuple[float, ...]) -> Halfspaces:
    """The outputs y with <row[:-1], y> + row[-1] <= 0 in every row."""
    return Halfspaces(tensor(*rows)[:, :-1], tensor(*rows)[:, -1])


def case(lower: tuple[float, ...], upper: tuple[float, ...], *unsafe: Halfspaces) -> Case:
    return Case(tensor(*lower), tensor(*upper), unsafe)


def of(*cases: Case) -> Property:
    return Property(len(cases[0].lower), cases[0].unsafe[0].rows.shape[1], cases)


def identity(size: int, dtype: torch.dtype = torch.float64) -> nn.Linear:
    """The network y = x."""
    layer = nn.Linear(size, size, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(size))
        layer.bias.zero_()
    return layer


# What is appended
