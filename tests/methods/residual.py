"""A small residual block."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block with a ReLU after each layer except the last: relu(... relu(first(x)) + x)."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(inside + 1)])

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for layer in self.layers[:-1]:
            branch = torch.relu(layer(branch))
        return torch.relu(self.layers[-1](branch) + x)
