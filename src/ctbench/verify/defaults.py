"""The cascades and stages that have a name."""

from __future__ import annotations

from ctbench.domains import AlphaCrown, domains
from ctbench.members import members, required_fields
from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.input_split import InputSplit
from ctbench.verify.milp import Milp
from ctbench.verify.stages import Bound, Falsify, Stage

# a few large steps go almost as far as many small ones
ALPHA_CROWN = Bound(domain=AlphaCrown(steps=8, lr=0.25, decay=0.9), batch_size=32)
FAST_STAGES: tuple[Stage, ...] = (  # bounds and an attack: each stage looks at a sample once
    Bound(domain="interval"),
    Bound(domain="crown-ibp"),
    Falsify(),
    Bound(domain="crown", batch_size=32),
    ALPHA_CROWN,
)
DEFAULT_STAGES: tuple[Stage, ...] = (  # then searches, until a sample is decided or its time is up
    *FAST_STAGES,
    InputSplit(),
    BranchAndBound(fallback=Milp(unstable=400, share=0.1)),  # with few unstable neurons, either search may be faster
)
CASCADES = {"fast": FAST_STAGES, "complete": DEFAULT_STAGES}


def stage_types() -> dict[str, type[Stage]]:
    """Return all stages by name: those of this package, and all other subclasses of `Stage` defined so far."""
    return members(Stage)


def stages_by_name(text: str) -> tuple[Stage, ...]:
    """Return the stages that a text names: "fast", "complete", or stages and domains in order, e.g. "interval,milp".

    A stage takes its defaults; a domain stands for its `Bound` with the domain's defaults, except that "alpha-crown" is
    `ALPHA_CROWN`, like in the cascades.

    Raises:
        ValueError: a name is unknown, or a stage has fields without a default.
    """
    return CASCADES[text] if text in CASCADES else tuple(_stage(name) for name in text.split(","))


def _stage(name: str) -> Stage:
    types = stage_types()
    if name in types:
        missing = required_fields(types[name])
        if missing:
            raise ValueError(f"the stage {name!r} has no default for {', '.join(missing)}: make it in Python")
        return types[name]()
    if name == ALPHA_CROWN.title:
        return ALPHA_CROWN
    if name in domains():
        return Bound(domain=name)
    names = sorted({*CASCADES, *types, *domains()})
    raise ValueError(f"no stage is called {name!r}; there are {', '.join(names)}")
