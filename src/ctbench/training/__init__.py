"""Training: recipes, the loop, and what it leaves behind."""

from ctbench.training.checkpoints import load_network, load_weights
from ctbench.training.loop import Run, TrainingDivergedError, load_run, train
from ctbench.training.recipe import Adam, Recipe
from ctbench.training.schedules import Constant, Linear, Ramp, Smooth

__all__ = [
    "Adam",
    "Constant",
    "Linear",
    "Ramp",
    "Recipe",
    "Run",
    "Smooth",
    "TrainingDivergedError",
    "load_network",
    "load_run",
    "load_weights",
    "train",
]
