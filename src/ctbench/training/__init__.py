"""Training: recipes, runs, and the files they leave."""

from ctbench.training.averaging import SWA
from ctbench.training.checkpoints import load_network, load_weights
from ctbench.training.divergence import TrainingDivergedError
from ctbench.training.initialization import initialize
from ctbench.training.matching import Matching
from ctbench.training.optimizers import SGD, Adam, Optimizer
from ctbench.training.recipe import Recipe
from ctbench.training.runs import Run, load_run, train
from ctbench.training.schedules import ConstantRamp, LinearRamp, Ramp, Schedule, SmoothRamp

__all__ = [
    "SGD",
    "SWA",
    "Adam",
    "ConstantRamp",
    "LinearRamp",
    "Matching",
    "Optimizer",
    "Ramp",
    "Recipe",
    "Run",
    "Schedule",
    "SmoothRamp",
    "TrainingDivergedError",
    "initialize",
    "load_network",
    "load_run",
    "load_weights",
    "train",
]
