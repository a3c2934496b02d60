"""Claims: each holds for rows that were made for it, fails for others, and says so in numbers."""

import pytest

from ctbench.experiments.claims import (
    All,
    Below,
    BestOnDiagonal,
    Correlates,
    Less,
    Over,
    PeaksInside,
    Rises,
    SuperLinear,
    Under,
)

ROWS = [
    {"setting": "a", "method": "IBP", "x": 1.0, "y": 1.0, "z": 3.0},
    {"setting": "a", "method": "SABR", "x": 2.0, "y": 4.0, "z": 5.0},
    {"setting": "a", "method": "TAPS", "x": 4.0, "y": 16.0, "z": 4.5},
]
OTHER = [{**row, "setting": "b", "y": -row["y"]} for row in ROWS]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Less("y", {"method": "IBP"}, {"method": ("SABR", "TAPS")}), True),
        (Less("y", {"method": "SABR"}, {"method": "IBP"}), False),
        (Less("y", {"method": "IBP"}, {"method": "SABR"}, margin=3.0), False),
        (Less("y", {"method": "COLT"}, {"method": "IBP"}), None),
        (Less("w", {"method": "IBP"}, {"method": "SABR"}), None),
        (Below("x", "z"), True),
        (Below("x", "y"), False),
        (Below("z", "x"), False),
        (Over("y", 0.5), True),
        (Over("y", 1.0), False),
        (Below("x", "z", where={"method": "COLT"}), None),
        (Rises("y", "x"), True),
        (Rises("y", "x", falls=True), False),
        (PeaksInside("z", "x"), True),
        (PeaksInside("y", "x"), False),
        (SuperLinear("y", "x"), True),
        (SuperLinear("z", "x"), False),
        (Correlates("x", "y", least=0.9), True),
        (Correlates("x", "y", sign=-1), False),
        (Under("x", 3.0), True),
        (Under("x", 2.0), False),
        (All(Rises("y", "x"), PeaksInside("z", "x")), True),
        (All(Rises("y", "x"), PeaksInside("y", "x")), False),
    ],
)
def test_a_claim_about_rows(claim, holds):
    assert claim(ROWS).holds is holds


def test_a_claim_must_hold_in_each_group():
    finding = Less("y", {"method": "IBP"}, {"method": "SABR"})([*ROWS, *OTHER])
    assert str(finding) == (
        "the claim does not hold here: y is 1 (IBP) against 4 (SABR) at a; y is -1 (IBP) against -4 (SABR) at b"
    )
    assert Less("y", {"method": "IBP"}, {"method": "SABR"}, where={"setting": "a"})([*ROWS, *OTHER]).holds
    assert Less("x", {"method": "IBP"}, {"method": "SABR"}, by=("setting", "z"))(ROWS).holds is None


@pytest.mark.parametrize(("best", "holds"), [(1, True), (0, False)])
def test_the_best_on_the_diagonal(best, holds):
    rows = [
        {"setting": "a", "test": test, "train": train, "own": float(train == (test if best else 0))}
        for test in (0, 1)
        for train in (0, 1)
    ]
    same = [{**row, "own": 1.0} for row in rows]
    assert BestOnDiagonal("own", "train", "test")(same).holds is None
    assert BestOnDiagonal("own", "train", "test")(rows).holds is holds
