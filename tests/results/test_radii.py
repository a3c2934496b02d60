"""Accuracies at the radii that a search has found."""

import pytest

from ctbench.results import SampleRecord, Verdict
from ctbench.results.radii import Radii, Trial


def trial(index, eps, verdict):
    right = verdict is not Verdict.MISCLASSIFIED
    return Trial(
        eps,
        SampleRecord(
            index=index, label=1, prediction=1 if right else 0, verdict=verdict, stage="crown", bound=None, seconds=1.0
        ),
    )


@pytest.fixture
def radii():
    """One sample is certified at 0.1 and falsified at 0.3, one is open, one is misclassified, one always certified."""
    trials = [
        trial(0, 0.1, Verdict.CERTIFIED),
        trial(0, 0.3, Verdict.FALSIFIED),
        trial(1, 0.2, Verdict.UNKNOWN),
        trial(2, 0.2, Verdict.MISCLASSIFIED),
        trial(3, 0.4, Verdict.CERTIFIED),
    ]
    return Radii.of(trials, largest=0.4, tolerance=0.1)


@pytest.mark.parametrize(
    ("eps", "certified", "adversarial"),
    [
        (0.0, 0.75, 0.75),
        (0.05, 0.5, 0.75),
        (0.1, 0.5, 0.75),  # exactly where it is certified
        (0.11, 0.25, 0.75),
        (0.29, 0.25, 0.75),
        (0.3, 0.25, 0.5),  # exactly where it is falsified
        (0.4, 0.25, 0.5),
        (0.41, 0.0, 0.5),
    ],
)
def test_a_radius_at_which_a_sample_is_decided_counts(radii, eps, certified, adversarial):
    assert radii.certified_accuracy(eps) == certified
    assert radii.adversarial_accuracy(eps) == adversarial


def test_the_steps_are_where_an_accuracy_changes(radii):
    assert radii.steps == [0.0, 0.1, 0.3, 0.4]
