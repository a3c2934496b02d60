"""The cascades that have a name."""

from __future__ import annotations

from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.input_split import InputSplit
from ctbench.verify.milp import Milp
from ctbench.verify.stages import AlphaCrown, Bound, Falsify, Stage

FAST_STAGES: tuple[Stage, ...] = (  # bounds and an attack: each looks at a sample once
    Bound(domain="interval"),
    Bound(domain="crown-ibp"),
    Falsify(),
    Bound(domain="crown", batch_size=32),
    AlphaCrown(),
)
DEFAULT_STAGES: tuple[Stage, ...] = (  # and searches, until a sample is decided or its time is up
    *FAST_STAGES,
    InputSplit(),
    BranchAndBound(aside=Milp(unstable=400, share=0.1)),  # where few signs are open either may be the faster one
)
CASCADES = {"fast": FAST_STAGES, "complete": DEFAULT_STAGES}
