"""How much memory bounds take: the bytes of all tensors that are alive at once, whatever the allocator does."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.kinds import ours
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctbench import bounds
from ctbench.domains import AlphaCrown, crown, domains
from ctbench.graph import Graph, freeze, trace
from ctbench.networks import CNN7
from ctbench.regions import Linf, Region
from ctbench.specification import margin_rows


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside, and of those that they are views of."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            counted = isinstance(tensor, Tensor) and not tensor.is_meta  # meta tensors have no bytes
            if counted and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.bytes += storage.nbytes()
                self.most = max(self.most, self.bytes)
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        return made

    def forget(self, storage: int, size: int) -> None:
        self.known.remove(storage)
        self.bytes -= size


def most_alive(compute: Callable[[], object]) -> int:
    with Alive() as alive:
        compute()
    return alive.most


def test_bytes_are_counted_while_they_are_alive():
    def compute() -> None:
        x = torch.zeros(100, dtype=torch.float64)
        y = x.view(10, 10)[:, :5] + 1  # 50 numbers
        del x
        y = y + torch.ones(50, dtype=torch.float64).view(10, 5)

    assert most_alive(compute) == 8 * max(100 + 50, 50 + 50 + 50)


@pytest.fixture(scope="module")
def cnn7() -> tuple[Graph, Region]:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 28, 28)
    graph, _ = freeze(trace(CNN7(width=4).build((1, 28, 28), 10), (1, 28, 28)), x)
    return graph.detach(), Linf(eps=0.1).region(x)


@torch.no_grad()
def test_crown_boxes_take_about_as_much_memory_as_they_may(cnn7):
    graph, region = cnn7
    weights = 4 * sum(p.numel() for p in CNN7(width=4).build((1, 28, 28), 10).parameters())
    limits = (2**22, 2**24, 2**26, 2**40)
    most = {memory: most_alive(lambda memory=memory: crown.boxes(graph, region, memory=memory)) for memory in limits}
    for memory in limits[:3]:
        assert most[memory] < memory + weights
    assert 2 * most[2**24] < most[2**26]
    assert 1.5 * most[2**26] < most[2**40]  # without a limit


@torch.no_grad()
def test_bounds_of_a_large_batch_take_about_as_much_memory_as_they_may():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    x = torch.rand(400, 30)
    for domain in ours(domains()):
        options = {"steps": 3} if domain == "alpha-crown" else {}
        small, large = (
            most_alive(lambda o=options | {"domain": domain, "memory": memory}: bounds(model, x, eps=0.05, **o))
            for memory in (2**21, 2**40)
        )
        assert small < 2**21 + 2**20, domain  # the specification of all is there anyway
        assert large > 1.2 * small, domain  # intervals merge the same forms once for a large batch, and save memory


def test_optimising_longer_takes_no_more_memory():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 4)).double()
    x, y = torch.rand(4, 8).double(), torch.tensor([0, 1, 2, 3])
    graph, region = trace(model, (8,)), Linf(eps=0.1).region(x)
    spec = margin_rows(y, 4, dtype=x.dtype)
    for intermediate in (False, True):
        few, many = (
            most_alive(partial(AlphaCrown(steps=steps, intermediate=intermediate).lower_bounds, graph, region, spec))
            for steps in (3, 12)
        )
        assert many <= 1.01 * few
