"""Readings of sorting, of the greatest entries, and of their places.

The values are those of a network that compares and exchanges pairs (Batcher 1968, "Sorting networks and their
applications"; Knuth, "The Art of Computer Programming" 5.2.2, algorithm M). Maximum and minimum of a pair increase in
both entries, so intervals of the sorted values are exact. An entry has the place r if r entries come before it: those
that are greater, or equal and earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from ctbench.graph import compositions as compose
from ctbench.graph.builder import Builder, Value
from ctbench.graph.comparisons import compared_in_pairs, is_zero
from ctbench.graph.functions import READINGS, dims_of_sample, reads
from ctbench.graph.ops import Concat, Shift, UnsupportedLayerError

Pair = tuple[int, int]  # places, of which the first gets the greater entry


@dataclass(frozen=True)
class Ordered(Sequence[Value]):
    """Entries and the places that they had; the places are computed when they are asked for."""

    values: Value
    places: Callable[[], Value]

    @property
    def indices(self) -> Value:
        return self.places()

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: Any) -> Any:
        return (self.values, self.indices)[place] if place not in (0, -2) else self.values


# ------------------------------------------------------------------------------------------------------- the values


def exchanges(size: int, count: int) -> list[list[Pair]]:
    """Pairs that are compared one list after the other, so that the `count` greatest entries come first."""
    rounds, first = list[list[Pair]](), 1 << max((size - 1).bit_length() - 1, 0)
    step = first
    while step and size > 1:
        stride, phase, distance = first, 0, step
        while True:
            rounds.append([(i, i + distance) for i in range(size - distance) if i & step == phase])
            if stride == step:
                break
            distance, stride, phase = stride - step, stride // 2, step
        step //= 2
    return list(_without_the_rest(rounds, count))[::-1]


def _without_the_rest(rounds: Iterable[list[Pair]], count: int) -> Iterator[list[Pair]]:
    """The rounds, from the last to the first, without pairs on which none of the first entries depends."""
    wanted = set(range(count))
    for pairs in reversed(list(rounds)):
        needed = [pair for pair in pairs if wanted.intersection(pair)]
        for pair in needed:
            wanted.update(pair)
        if needed:
            yield needed


def greatest(build: Builder, path: str, x: Value, dim: int, count: int) -> Value:
    """The `count` greatest entries along an axis, in descending order."""
    for pairs in exchanges(x.shape[dim], count):
        firsts, seconds = (list(side) for side in zip(*pairs, strict=True))
        sides = [_entries(build, path, x, dim, side) for side in (firsts, seconds)]
        ends = [READINGS[function](build, path, *sides) for function in (torch.maximum, torch.minimum)]
        rest = [place for place in range(x.shape[dim]) if place not in {*firsts, *seconds}]
        ends += [_entries(build, path, x, dim, rest)] if rest else []
        joined = build.append(path, Concat(dim, tuple(end.shape[dim] for end in ends)), *ends)
        order = [*firsts, *seconds, *rest]
        x = _entries(build, path, joined, dim, [order.index(place) for place in range(len(order))])
    return compose.taken(build, path, x, dim, slice(0, count))


def _entries(build: Builder, path: str, x: Value, dim: int, places: list[int]) -> Value:
    return build.move(path, lambda t: t[(slice(None),) * (dim + 1) + (places,)], x, copies=True)


# ------------------------------------------------------------------------------------------------------- the places


def _places(build: Builder, path: str, x: Value, dim: int, count: int) -> Value:
    """The places of the `count` greatest entries along an axis, in descending order of the entries."""
    size = x.shape[dim]
    if size == 1:
        return compose.given(build, path, torch.zeros(x.shape, dtype=build.like.dtype, device=build.like.device), x)
    pairs, won = compared_in_pairs(build, path, x, dim)
    # before entry e stand those that reach it from before, and those after it that it does not reach
    signs = [{at: Fraction(1 if e == j else -1) for at, (i, j) in enumerate(pairs) if e in (i, j)} for e in range(size)]
    axis = [size if place == dim else 1 for place in range(len(x.shape))]
    later = torch.arange(size - 1, -1, -1, dtype=build.like.dtype, device=build.like.device)
    ranks = build.append(path, Shift(later.view(axis)), compose.along(build, path, won, signs, dim))
    rows = build.move(path, lambda t: t.unsqueeze(dim + 1).repeat_interleave(count, dim + 1), ranks, copies=True)
    shape = [count if place == dim else 1 for place in range(len(rows.shape))]
    wanted = torch.arange(count, dtype=build.like.dtype, device=build.like.device).view(shape)
    holds = is_zero(build, path, build.append(path, Shift(-wanted), rows))
    numbers = [{entry: Fraction(entry) for entry in range(1, size)}]
    return compose.squeezed(build, path, compose.along(build, path, holds, numbers, dim + 1), dim + 1)


def ordered(build: Builder, path: str, x: Value, dim: int, count: int, *, descending: bool) -> Ordered:
    """The first `count` entries along an axis in this order, and their places."""
    if not 1 <= count <= x.shape[dim]:
        raise ValueError(f"'{path}' takes {count} of {x.shape[dim]} entries: give a number from 1 to {x.shape[dim]}")
    negative = READINGS[torch.neg]
    turned = x if descending else negative(build, path, x)
    values = greatest(build, path, turned, dim, count)
    values = values if descending else negative(build, path, values)
    return Ordered(values, lambda: _places(build, path, turned, dim, count))


# ----------------------------------------------------------------------------------------------------- the readings


@reads(torch.topk, "topk")
def _topk(
    build: Builder,
    path: str,
    x: Value,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002 - torch's name
) -> Ordered:
    if not sorted:
        raise UnsupportedLayerError(f"'{path}' leaves the order of the entries open: give sorted=True")
    (place,) = dims_of_sample(path, dim, x.shape)
    return ordered(build, path, x, place, k, descending=largest)


@reads(torch.sort, "sort")
def _sort(
    build: Builder, path: str, x: Value, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> Ordered:
    (place,) = dims_of_sample(path, dim, x.shape)
    return ordered(build, path, x, place, x.shape[place], descending=descending)
