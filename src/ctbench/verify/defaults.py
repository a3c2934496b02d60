"""The cascades and stages that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctbench.attacks import APGD, PGD
from ctbench.domains import AlphaCrown, CrownIBP, Zonotope, domains
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
# before CROWN, which takes minutes to bound the many neurons of such a network: passes forward over parts of the box
FORWARD_SPLIT = InputSplit(inner=Zonotope(fold=500), least_values=2**17, batch_subproblems=16)
SEARCHES: tuple[Stage, ...] = (  # they run until a sample is decided or its time is up
    InputSplit(),
    BranchAndBound(fallback=Milp(unstable=400, share=0.1)),  # with few unstable neurons, either search may be faster
)
DEFAULT_STAGES: tuple[Stage, ...] = (*FAST_STAGES[:3], FORWARD_SPLIT, *FAST_STAGES[3:], *SEARCHES)
# CTBench, App. B.5: IBP, CROWN-IBP, and a complete verifier on what they leave open. Before it comes PGD of 200 steps
# from 5 starts, as in Mao et al. 2023, App. D.5; its steps of a fifth of the radius are those of CTBench's code
CTBENCH_STAGES: tuple[Stage, ...] = (
    Bound(domain="interval"),
    Bound(domain=CrownIBP(every_layer=True)),
    Falsify(attack=PGD(steps=200, step_size=0.2), rounds=5),
    *DEFAULT_STAGES[3:],  # from here on our complete verifier, where CTBench has MN-BaB
)
CASCADES = {"fast": FAST_STAGES, "complete": DEFAULT_STAGES, "ctbench": CTBENCH_STAGES}
TIMEOUT = 60.0  # seconds for each sample
TIMEOUTS = {"ctbench": 1000.0}


def stage_types() -> dict[str, type[Stage]]:
    """Return all stages by name: those of this package, and all other subclasses of `Stage` defined so far."""
    return members(Stage)


def stages_by_name(text: str) -> tuple[Stage, ...]:
    """Return the stages that a text names: a cascade such as "complete", or stages and domains, e.g. "interval,milp".

    A stage takes its defaults; a domain stands for its `Bound` with the domain's defaults, except that "alpha-crown" is
    `ALPHA_CROWN`, like in the cascades.

    Raises:
        ValueError: a name is unknown, or a stage has fields without a default.
    """
    return CASCADES[text] if text in CASCADES else tuple(_stage(name) for name in text.split(","))


def timeout_of(text: str) -> float:
    """Return the usual seconds for each sample with the stages that a text names: 1000 for "ctbench", else 60."""
    return TIMEOUTS.get(text, TIMEOUT)


def with_attack(stages: Sequence[Stage], *, steps: int | None = None, restarts: int | None = None) -> tuple[Stage, ...]:
    """Return the same stages with another strength of the attacks (`Falsify`); None leaves a number as it is.

    Args:
        stages: a cascade.
        steps: the steps of each attack.
        restarts: how often each attack is repeated, the `rounds` of the stage.

    Raises:
        ValueError: no stage attacks, or the attack of a stage has no steps.
    """
    if steps is None and restarts is None:
        return tuple(stages)
    if not any(isinstance(stage, Falsify) for stage in stages):
        titles = ", ".join(stage.title for stage in stages)
        raise ValueError(f"steps or restarts of an attack are given, but none of {titles} is an attack: add falsify")
    return tuple(_stronger(stage, steps, restarts) if isinstance(stage, Falsify) else stage for stage in stages)


def _stronger(stage: Falsify, steps: int | None, restarts: int | None) -> Falsify:
    attack = stage.attack
    if steps is not None:
        if not isinstance(attack, PGD | APGD):
            raise ValueError(f"the attack {attack.name!r} takes no number of steps: give them to pgd or apgd")
        attack = replace(attack, steps=steps)
    return replace(stage, attack=attack, rounds=stage.rounds if restarts is None else restarts)


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
