"""VNN-LIB: properties that are written and read again are the same."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vnnlib.texts import DECLARED, vector

from ctbench.vnnlib import (
    Case,
    Halfspaces,
    Property,
    parse_vnnlib,
    read_vnnlib,
    robustness,
    write_property,
    write_robustness,
)

# Writing


def test_robustness_as_it_is_written(tmp_path: Path):
    write_robustness(tmp_path / "a.vnnlib", torch.tensor([[0.0], [1e-7]]), torch.tensor([[0.5], [1.0]]), y=1, classes=3)
    assert (tmp_path / "a.vnnlib").read_text().splitlines() == [
        *(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2")),
        "(assert (>= X_0 0.0))",
        "(assert (<= X_0 0.5))",
        "(assert (>= X_1 0.00000010000000116860974))",  # 1e-7 in single precision, kept exactly
        "(assert (<= X_1 1.0))",
        "(assert (or",
        "  (and (>= Y_0 Y_1))",
        "  (and (>= Y_2 Y_1))",
        "))",
    ]


@pytest.mark.parametrize("name", ["a.vnnlib", "a.vnnlib.gz"])
def test_robustness_at_the_size_of_tiny_imagenet(tmp_path: Path, name: str):
    center = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    lower, upper = (center - 1 / 255).clamp(0, 1), (center + 1 / 255).clamp(0, 1)
    (tmp_path / name).write_text("an old file")
    write_robustness(tmp_path / name, lower, upper, y=17, classes=200)
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert ((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    prop = read_vnnlib(tmp_path / name)
    assert prop == robustness(lower, upper, 17, 200)
    (case,) = prop.cases
    assert torch.equal(case.lower.float().view_as(lower), lower)
    assert torch.equal(case.upper.float().view_as(upper), upper)
    assert len(case.unsafe) == 199
    logits = torch.randn(64, 200, generator=torch.Generator().manual_seed(1))
    logits[::2, 17] = 9.0
    assert torch.equal(case.violated(logits), logits.argmax(1) != 17)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_strict_bounds_and_rows_are_written_as_such(tmp_path: Path):
    text = DECLARED + "(assert (< X_0 0.5))(assert (>= X_0 -0.5))(assert (or (< Y_0 Y_1) (<= Y_0 -1) (> Y_1 0.5)))"
    write_property(tmp_path / "a.vnnlib", parse_vnnlib(text))
    assert (tmp_path / "a.vnnlib").read_text().splitlines()[3:] == [
        "(assert (>= X_0 -0.5))",
        "(assert (< X_0 0.5))",
        "(assert (or",
        "  (and (> Y_1 Y_0))",
        "  (and (<= Y_0 -1.0))",
        "  (and (< (* -1.0 Y_1) -0.5))",
        "))",
    ]
    again = read_vnnlib(tmp_path / "a.vnnlib")
    assert again == parse_vnnlib(text)
    assert not again.cases[0].includes(vector(0.5))


@st.composite
def properties(draw: st.DrawFn) -> Property:
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pairs = st.lists(st.tuples(FINITE, FINITE).map(sorted), min_size=inputs, max_size=inputs)
    coefficients = st.lists(FINITE | st.sampled_from([0.0, 1.0, -1.0]), min_size=outputs, max_size=outputs)
    rows = st.lists(st.tuples(coefficients, FINITE | st.just(0.0)), min_size=1, max_size=3)

    def halfspaces(found: list[tuple[list[float], float]]) -> Halfspaces:
        matrix = torch.tensor([row for row, _ in found], dtype=torch.float64)
        return Halfspaces(matrix, vector(*(offset for _, offset in found)))

    # two cases with the same box would be read as one
    count = draw(st.sampled_from([1, 2, 3]))
    boxes = draw(st.lists(pairs, min_size=count, max_size=count, unique_by=lambda box: tuple(map(tuple, box))))
    unsafe = st.lists(rows.map(halfspaces), min_size=1, max_size=3).map(tuple)
    cases = [Case(vector(*(p[0] for p in box)), vector(*(p[1] for p in box)), draw(unsafe)) for box in boxes]
    return Property(inputs, outputs, tuple(cases))


def test_a_property_is_read_back_as_it_was_written(tmp_path: Path):
    seen: Counter[int] = Counter()

    @settings(deadline=None, derandomize=True, max_examples=80)
    @given(properties(), st.sampled_from(["a.vnnlib", "a.vnnlib.gz"]))
    def check(prop: Property, name: str) -> None:
        write_property(tmp_path / name, prop)
        assert read_vnnlib(tmp_path / name) == prop
        seen[len(prop.cases)] += 1

    check()
    assert min(seen[1], seen[2], seen[3]) > 10


def test_equality_sees_every_part():
    prop = robustness(vector(0, 0), vector(1, 1), 0, 3)
    (case,) = prop.cases
    (first, second), moved = case.unsafe, vector(0, 0.5)
    strict = Halfspaces(second.rows, second.offsets, torch.tensor([True]))
    others = [
        Property(2, 3, (Case(moved, case.upper, case.unsafe),)),
        Property(2, 3, (Case(case.lower, case.upper + moved, case.unsafe),)),
        Property(2, 3, (Case(case.lower, case.upper, (second, first)),)),
        Property(2, 3, (Case(case.lower, case.upper, (first,)),)),
        Property(2, 3, (Case(case.lower, case.upper, (first, Halfspaces(second.rows, vector(1)))),)),
        Property(2, 3, (Case(case.lower, case.upper, (first, Halfspaces(second.rows * 2, second.offsets))),)),
        Property(2, 3, (case, case)),
        Property(2, 3, (Case(case.lower, case.upper, (first, strict)),)),
    ]
    assert prop == robustness(vector(0, 0), vector(1, 1), 0, 3)
    assert all(other != prop for other in others)
    assert case != first
    assert first != case


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.vnnlib"
    write_robustness(path, vector(0), vector(1), 0, 2)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_robustness(path, vector(0), vector(2), 0, 2)
    assert path.read_bytes() == before
