"""Shapes in a trace: they are computed where a forward asks for one, as if each had been computed at once."""

import pytest
import torch
from torch import Tensor, nn

from ctbench.graph import trace
from ctbench.graph.tracing import Tracer


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the calls whose shapes are computed, in their order."""
    kinds, example = list[str](), Tracer._example
    monkeypatch.setattr(Tracer, "_example", lambda self, kind, *call: kinds.append(kind) or example(self, kind, *call))
    return kinds


def test_a_forward_that_asks_for_no_shape_computes_none(examples):
    trace(nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (2, 3))
    assert examples == []


def test_a_forward_that_asks_for_a_shape_computes_each_value_once(examples):
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            x = x.reshape(x.shape[0], x.size(1) * x.shape[2])
            return self.last(x)

    assert trace(Asking(), (2, 3)).nodes[-1].shape == (2,)
    assert examples == ["placeholder", "call_module", "call_function"]


def test_a_shape_is_that_of_the_arguments_at_the_call():
    class Growing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            parts = [x, x]
            both = torch.cat(parts, 1)
            parts.append(x)
            return both[:, : both.shape[1] // 2]

    assert trace(Growing(), (3,)).nodes[-1].shape == (3,)


def test_the_outputs_of_an_attention_are_unpacked():
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.attention(x, x, x)
            return self.head((x + y).mean(1))

    torch.manual_seed(0)
    model, x = Attending().eval(), torch.rand(5, 4, 8)
    graph = trace(model, (4, 8))
    torch.testing.assert_close(graph(x), model(x))
