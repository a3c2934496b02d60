"""Tuning: a study compares the values of a recipe's fields on images that are held out of the training set.

    study = ctbench.tune(recipe, ["method.ratio=0.1,0.4", "l1=1e-6:1e-4:log"], out="studies/sabr", trials=20)
    study.chosen, study.results

`ctbench.results.studies` describes the files of a study.
"""

from ctbench.tuning.ctbench_spaces import read_space, spaces
from ctbench.tuning.plan import Plan
from ctbench.tuning.space import Choices, Range, Space
from ctbench.tuning.trial import Begun, Outcome
from ctbench.tuning.tuning import tune

__all__ = ["Begun", "Choices", "Outcome", "Plan", "Range", "Space", "read_space", "spaces", "tune"]
