"""Reasons for being unknown: the first one counts."""

import itertools

import pytest

from ctbench.results import Open


@pytest.mark.parametrize("reasons", list(itertools.permutations([Open.UNDECIDED, Open.ERROR, Open.TIME])))
def test_an_error_counts_before_time_and_time_before_nothing(reasons):
    assert Open.first(*reasons) is Open.ERROR
    assert Open.first(Open.TIME, Open.UNDECIDED) is Open.first(Open.UNDECIDED, Open.TIME) is Open.TIME
    assert Open.first(*reasons, Open.JOB_OVER) is Open.JOB_OVER
    assert Open.first(Open.UNDECIDED) is Open.UNDECIDED
