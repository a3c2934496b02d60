"""A training of two epochs: as a command, and any recipe cut short."""

from dataclasses import replace

from ctbench.networks import CNN3
from ctbench.recipes import recipe
from ctbench.training import Recipe

TINY = [
    f"--set={change}" for change in ("epochs=2", "ramp.end=1", "batch_size=256", "network.width=2", "threat.eps=0.05")
]
SHORT = ["train", "digits_ibp", *TINY, "--quiet"]


def shortened(name: str) -> Recipe:
    """A recipe by its name, with a small network and two epochs."""
    chosen = recipe(name)
    return replace(chosen, network=CNN3(width=2), epochs=2, batch_size=256, ramp=replace(chosen.ramp, end=1))
