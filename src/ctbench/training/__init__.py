"""Training: recipes, the loop, and what it leaves behind."""

from ctbench.training.averaging import SWA
from ctbench.training.checkpoints import load_network, load_weights
from ctbench.training.loop import Run, TrainingDivergedError, load_run, train
from ctbench.training.recipe import Adam, Recipe
from ctbench.training.schedules import Constant, Linear, Ramp, Schedule, Smooth

__all__ = [
    "SWA",
    "Adam",
    "Constant",
    "Linear",
    "Ramp",
    "Recipe",
    "Run",
    "Schedule",
    "Smooth",
    "TrainingDivergedError",
    "load_network",
    "load_run",
    "load_weights",
    "train",
]
