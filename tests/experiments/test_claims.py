"""Claims: each holds for rows that were made for it, fails for others, and says so in numbers."""

import math

import pytest

from ctbench.experiments.claims import (
    All,
    Below,
    BestOnDiagonal,
    Correlates,
    Less,
    Lowest,
    Over,
    PeaksInside,
    Rises,
    SuperLinear,
    Under,
    Widens,
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
        (Lowest("y", "IBP"), True),
        (Lowest("y", "TAPS"), False),
        (Lowest("y", "COLT"), None),
        (Lowest("w", "IBP"), None),
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


def test_the_smallest_value_decides():
    rows = [{"setting": "a", "least curvature": value} for value in (0.5, 0.25)]
    assert "of 2 values of least curvature, the smallest is 0.25" in str(Over("least curvature", 0.0)(rows))


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


GAPS = [
    {"setting": "a", "method": method, "eps": eps, "error": eps * slope}
    for method, slope in (("AT", 1.0), ("COAP", 3.0))
    for eps in (0.5, 1.0)
]


def test_what_cannot_be_judged_is_said():
    both = All(Less("y", {"method": "IBP"}, {"method": "SABR"}), Less("w", {"method": "IBP"}, {"method": "SABR"}))
    assert str(both(ROWS)).startswith("the claim holds here, as far as it can be judged: y is 1 (IBP)")
    opposite = All(Less("y", {"method": "SABR"}, {"method": "IBP"}), Less("w", {"method": "IBP"}, {"method": "SABR"}))
    assert str(opposite(ROWS)).startswith("the claim does not hold here: y is 4 (SABR)")
    assert not Less("y", {"method": "IBP"}, {"method": "SABR"})(ROWS).partly


def test_exceptions_of_the_paper_do_not_count():
    rows = [*ROWS, *OTHER]
    claim = {"these": {"method": "IBP"}, "than": {"method": "SABR"}}
    assert not Less("y", **claim)(rows).holds
    assert Less("y", **claim, but={"setting": "b"})(rows).holds
    assert not Less("y", **claim, but={"setting": "a"})(rows).holds


def test_a_gap_that_widens():
    wide = Widens("error", "eps", {"method": "COAP"}, {"method": "AT"})
    assert str(wide(GAPS)) == (
        "the claim holds here: the difference in error (COAP - AT) goes from 1 to 2 as eps goes from 0.5 to 1 at a"
    )
    assert Widens("error", "eps", {"method": "AT"}, {"method": "COAP"})(GAPS).holds is False
    assert wide([{**row, "eps": -row["eps"]} for row in GAPS]).holds is False  # from 2 to 1: above 0, but it shrinks
    narrower = [{**row, "error": -row["error"]} for row in GAPS if row["method"] == "AT"]
    assert wide([*narrower, *({**row, "error": -5.0} for row in GAPS if row["method"] == "COAP")]).holds is False
    assert wide(GAPS[:1] + GAPS[2:3]).holds is None
    assert wide(GAPS[:2]).holds is None


def test_the_lowest_says_which_method_is_lower():
    finding = Lowest("y", "SABR")(ROWS)
    assert finding.numbers == "y is lowest for IBP (1), SABR has 4 at a"
    equal = [{**row, "y": 1.0} for row in ROWS]
    assert all(Lowest("y", method)(equal).holds for method in ("IBP", "SABR", "TAPS"))


@pytest.mark.parametrize(("last", "holds"), [(20.0, True), (0.5, False)])
def test_infinity_is_the_last_place_of_an_axis(last, holds):
    rows = [*ROWS, {"setting": "a", "method": "TAPS", "x": math.inf, "y": last}]
    assert Rises("y", "x")(rows).holds is holds
    assert "as x goes from 1 to inf" in Rises("y", "x")(rows).numbers
    assert PeaksInside("y", "x")(rows).holds is not holds
    assert SuperLinear("y", "x")(rows).holds


def test_places_that_are_not_numbers_are_no_places():
    rows = [*ROWS, *({**ROWS[0], "x": value, "y": 99.0} for value in (math.nan, "IBP", None))]
    assert Rises("y", "x")(rows) == Rises("y", "x")(ROWS)
