"""What a study chooses, why, and which parameters mattered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna

from ctbench.results import TrialRecord
from ctbench.results.studies import front
from ctbench.tuning.plan import Plan
from ctbench.tuning.proposing import distributions

ENOUGH, BEST = 10, 5  # complete trials that the importance needs, and how many of them are "good" at least


def choice(plan: Plan, trials: Sequence[TrialRecord]) -> tuple[list[int], str]:
    """The numbers of the chosen trials, and why.

    Raises:
        ValueError: no trial is complete.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        errors = "; ".join(f"trial {trial.trial}: {trial.error}" for trial in trials if trial.error)
        raise ValueError(
            f"none of {len(trials)} trials is complete, so nothing can be chosen ({errors or 'no error'}): give more "
            f"time (--total) or more trials, or another space"
        )
    if plan.objective == "pareto":
        best = sorted(front(complete), key=lambda trial: (trial.accuracies[1], -trial.trial), reverse=True)
        return [trial.trial for trial in best], (
            f"no other of {len(complete)} complete trials is at least as high in natural and in certified accuracy on "
            f"the {plan.compared_on} images, and higher in one"
        )
    first = max(complete, key=lambda trial: (trial.accuracies[1], trial.accuracies[0], -trial.trial))
    natural, certified = first.accuracies
    return [first.trial], (
        f"trial {first.trial} has the highest certified accuracy of {len(complete)} complete trials on the "
        f"{plan.compared_on} images, {100 * certified:.2f} %, with natural accuracy {100 * natural:.2f} %; of equal "
        f"ones the highest natural accuracy counts, then the first trial"
    )


def importance(plan: Plan, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The share of each parameter in what makes the certified accuracy good, by PED-ANOVA (Watanabe et al. 2023).

    With few trials it says nothing, and why.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < ENOUGH:
        reason = f"{len(complete)} complete trials are too few: PED-ANOVA needs {ENOUGH}, to know {BEST} good ones"
        return {"evaluator": None, "reason": reason}
    if len({trial.accuracies[1] for trial in complete}) == 1:
        return {"evaluator": None, "reason": "all complete trials have the same certified accuracy"}
    study, space = optuna.create_study(direction="maximize"), distributions(plan)
    for trial in complete:
        study.add_trial(
            optuna.trial.create_trial(params=dict(trial.parameters), distributions=space, value=trial.accuracies[1])
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, BEST / len(complete)))
    return {
        "evaluator": "PED-ANOVA",
        "values": dict(optuna.importance.get_param_importances(study, evaluator=evaluator)),
    }
