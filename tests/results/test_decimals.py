import pytest

from ctbench.results.decimals import decimals


@pytest.mark.parametrize(
    ("value", "text"),
    [(2 / 255, "2/255"), (8 / 255, "8/255"), (0.1, "0.1"), (51 / 255, "0.2"), (0.03137, "0.03137"), (1.0, "1")],
)
def test_a_radius_in_steps_of_pixels_is_shown_as_such(value, text):
    assert decimals(value, 4) == text


@pytest.mark.parametrize("value", [0.0, -2 / 255, 3.5, float("inf"), float("nan")])
def test_other_numbers_keep_their_digits(value):
    assert decimals(value) == f"{value:.6g}"
