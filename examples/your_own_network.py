"""Bound and certify a network of your own, which plain PyTorch has trained.

python examples/your_own_network.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ctbench
from ctbench.datasets import Digits
from ctbench.verify import FAST_STAGES


class Residual(nn.Module):
    """Any graph of supported layers will do: here are a skip connection and a smooth activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.first(x))
        return self.last((z + torch.tanh(self.second(z))).flatten(1))


def main() -> None:
    torch.manual_seed(0)
    data, model = Digits().load(), Residual()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(data.train.inputs), data.train.labels).backward()
        optimizer.step()

    x, y = data.test[:100]
    for domain in ("interval", "crown-ibp", "zonotope", "crown"):
        with torch.no_grad():
            margins = ctbench.margin_bounds(model, x, y, eps=0.03, domain=domain)  # of z_y - z_k, [100, 10]
        proved = margins.scatter(1, y[:, None], torch.inf).amin(1) > 0
        print(f"{domain:<10} lowest margin on average {margins.amin(1).mean():7.3f}, {int(proved.sum()):3} proved")

    for threat in (ctbench.Linf(0.03), ctbench.L2(0.2)):
        result = ctbench.certify(model, x, y, threat, stages=FAST_STAGES)
        outcomes = [f"{count} {kind}" for kind, count in result.outcomes.items() if count]
        print(f"{threat.name} {threat.eps}:", ", ".join(outcomes))


if __name__ == "__main__":
    main()
