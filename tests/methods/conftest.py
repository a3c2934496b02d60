"""Networks in double precision, and the run of a method on a batch, for the tests of each paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctbench.graph import Graph, freeze, trace
from ctbench.methods import Batch, Method, RobustLoss
from ctbench.regions import Linf


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )


@dataclass(frozen=True)
class Setting:
    """A network, a batch of inputs and labels, and a radius."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float = 0.1

    def frozen(self) -> tuple[Graph, Tensor]:
        return freeze(trace(self.model, tuple(self.x.shape[1:])), self.x, training=True)

    def batch(self, logits: Tensor, **changes: Any) -> Batch:
        generator = torch.Generator().manual_seed(3)
        region = Linf(eps=self.eps).region(self.x)
        return Batch(
            **({"x": self.x, "y": self.y, "region": region, "logits": logits, "generator": generator} | changes)
        )

    def run(self, method: Method, **changes: Any) -> RobustLoss:
        net, logits = self.frozen()
        return method(net, self.batch(logits, **changes))

    def gradient(self, method: Method, **changes: Any) -> Tensor:
        """The gradient of the mean loss with respect to all parameters, as one vector."""
        loss = self.run(method, **changes).per_sample.mean()
        gradients = torch.autograd.grad(loss, list(self.model.parameters()), materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def slope(self, method: Method, direction: Tensor, step: float = 1e-6) -> float:
        """The derivative of the mean loss along a direction of all parameters, by finite differences."""
        parts = direction.split([parameter.numel() for parameter in self.model.parameters()])
        ends = []
        with torch.no_grad():
            for move in (step, -2 * step, step):
                for parameter, part in zip(self.model.parameters(), parts, strict=True):
                    parameter += move * part.view_as(parameter)
                ends.append(self.run(method).per_sample.mean().item())
        return (ends[0] - ends[1]) / (2 * step)


@pytest.fixture(params=[mlp, cnn], ids=["mlp", "cnn"])
def setting(request: pytest.FixtureRequest) -> Setting:
    torch.manual_seed(11)
    model = request.param().double()
    return Setting(model, torch.rand(5, 2, 3, 3).double(), torch.tensor([1, 3, 0, 0, 2]))


@pytest.fixture
def same_method(setting: Setting) -> Callable[[Method, Method], None]:
    """Check that two methods have the same losses and the same gradients."""

    def check(one: Method, other: Method) -> None:
        torch.testing.assert_close(setting.run(one).per_sample, setting.run(other).per_sample, rtol=0, atol=1e-9)
        torch.testing.assert_close(setting.gradient(one), setting.gradient(other), rtol=0, atol=1e-9)

    return check
