"""Sorting networks put the greatest entries first, and bounds of sorted values are as tight as they can be."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from ctbench import bounds
from ctbench.graph import UnsupportedLayerError, trace
from ctbench.graph.orders import exchanges
from ctbench.regions import Box


@pytest.mark.parametrize("size", range(1, 10))
def test_the_greatest_entries_come_first(size):
    """By the zero-one principle, it is enough to order zeros and ones."""
    for count in range(1, size + 1):
        rounds = exchanges(size, count)
        assert all(len({place for pair in pairs for place in pair}) == 2 * len(pairs) for pairs in rounds)
        for entries in product((0, 1), repeat=size):
            ordered = list(entries)
            for pairs in rounds:
                for first, second in pairs:
                    ordered[first], ordered[second] = sorted((ordered[first], ordered[second]), reverse=True)
            assert ordered[:count] == sorted(entries, reverse=True)[:count]


def test_a_few_of_many_take_fewer_exchanges():
    counts = [sum(map(len, exchanges(64, count))) for count in (1, 4, 64)]
    assert counts[0] == 63
    assert counts[0] < counts[1] < counts[2]


class Sorted(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.topk(self.count, 1)[0], x.topk(self.count, 1, largest=False).values], 1)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_intervals_of_sorted_values_are_exact(count):
    torch.manual_seed(count)
    low = torch.randn(5, 7, dtype=torch.float64)
    high = low + torch.rand(5, 7, dtype=torch.float64)
    lower, upper = bounds(Sorted(count), Box(low, high), domain="interval")
    for found, ends in ((lower, low), (upper, high)):
        torch.testing.assert_close(found, Sorted(count)(ends), rtol=0, atol=1e-12)


def test_places_of_many_entries_are_refused_only_if_they_are_read():
    class Places(nn.Module):
        def __init__(self, output: int) -> None:
            super().__init__()
            self.output = output

        def forward(self, x: Tensor) -> Tensor:
            return x.topk(2, 1)[self.output]

    trace(Places(0), (301,))
    with pytest.raises(UnsupportedLayerError, match="orders 301 entries, which are compared in pairs: at most 300"):
        trace(Places(1), (301,))


@pytest.mark.parametrize("count", [0, 4])
def test_more_entries_than_there_are_cannot_be_taken(count):
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.topk(count, 1)[0] if isinstance(x, torch.fx.Proxy) else x

    with pytest.raises(ValueError, match=f"takes {count} of 3 entries: give a number from 1 to 3"):
        trace(Wrong(), (3,))
