"""Which values the next trial gets: a function of the trials so far and of the seed, so a study can be resumed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import optuna

from ctbench.tuning.journal import directions
from ctbench.tuning.plan import Plan
from ctbench.tuning.space import Choices, Range, Value

ATTEMPTS = 100  # at values that no other trial has


def proposal(plan: Plan, trials: Sequence[optuna.trial.FrozenTrial], *, wanted: int) -> dict[str, Value]:
    """The values of the next trial.

    If the space has no more combinations than trials are wanted, each has its turn, in a random order. Otherwise they
    are those of Optuna's TPE, which learns from the trials so far.

    Args:
        plan: the study.
        trials: all its trials.
        wanted: how many there are to be.
    """
    number, size, tried = len(trials), plan.space.size, [trial.params for trial in trials]
    if size is not None and size <= wanted:
        every = list(plan.space.combinations())
        return next(values for values in random.Random(plan.seed).sample(every, size) if values not in tried)
    for attempt in range(ATTEMPTS):
        seed = random.Random(f"{plan.seed}/{number}/{attempt}").getrandbits(32)
        values = _sampled(plan, trials, seed)
        if values not in tried:
            break
    return values


def _sampled(plan: Plan, trials: Sequence[optuna.trial.FrozenTrial], seed: int) -> dict[str, Value]:
    """What the sampler says: of a copy of the study, so that the journal gets a trial as a whole."""
    copy = optuna.create_study(directions=directions(plan), sampler=optuna.samplers.TPESampler(seed=seed))
    copy.add_trials(trials)
    return dict(copy.ask(distributions(plan)).params)


def distributions(plan: Plan) -> dict[str, optuna.distributions.BaseDistribution]:
    """The space, for Optuna."""
    return {name: _distribution(values) for name, values in plan.space.parameters.items()}


def _distribution(values: Choices | Range) -> optuna.distributions.BaseDistribution:
    if isinstance(values, Choices):
        return optuna.distributions.CategoricalDistribution(values.texts)
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
