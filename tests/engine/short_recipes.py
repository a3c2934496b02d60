"""An own module for `--import`: in every process that imports it, recipes train small networks for two epochs."""

from tests.cli.short import shortened

from ctbench.cli import show

show.recipe = shortened
