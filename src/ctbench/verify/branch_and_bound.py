"""Branch and bound on the ranges of pre-activations: the signs of a ReLU's input, or any values between two numbers.

Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification", with the bounds of Wang et al.
2021 (beta-CROWN; `subproblems`), a filtered choice of what to split (De Palma et al. 2021; `branching`), and ranges of
any activation, and of the factors of products, as in Shi et al. 2024, "Neural network verification with
branch-and-bound for general nonlinearities" (GenBaB):

    until no sub-problem is open:
        take the sub-problems with the lowest bounds, of all samples and margins together
        falsified if the point that minimises a bound, or one near it, has a negative margin
        split each at a value of one neuron (0 for a ReLU), which belongs to both halves, and bound these
        keep the halves whose bounds are not positive

A sub-problem is a margin of a sample, and the ranges that are known in it. Bounds are searched for in the network's
precision; a sub-problem is closed by the bound that the same free numbers give in double precision.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import memory_budget
from ctbench.time_budget import Budget, OutOfTime
from ctbench.verify import branching, subproblems
from ctbench.verify.maxima import without_maxima
from ctbench.verify.problem import Findings, Problem, checked
from ctbench.verify.raised import Raised
from ctbench.verify.stages import Stage
from ctbench.verify.subproblems import Root, Subproblems, is_positive

MANY = 100  # sub-problems for each sample, before pairs are looked for
PATIENCE = 1 / 20, 3.0  # of a sample's time, and in seconds, before another stage is asked
AT_ONCE = 2**23  # at most this many values of the network in the sub-problems that are split at once


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Stage):
    """Branch and bound, on the open samples of a batch together; each has its own time.

    Args:
        batch_subproblems: sub-problems that are split at once; fewer if the network has more than 32,768 values. Like
            `max_elements` this is for a CPU, and grows with the memory of another device. If there is not enough
            memory, it is halved.
        steps: of the optimisation of each bound.
        root_steps: of the optimisation of all pre-activation bounds, at the root.
        candidates: neurons of each of two rankings that are tried, with cheap bounds, before one is split.
        pairs: of ReLUs of a layer that are bounded together, once the search takes long; 0 for no pairs.
        max_subproblems: sub-problems of a sample after which it is given up.
        max_elements: free numbers that all open sub-problems may hold; beyond that, the samples with the most
            sub-problems are given up. About as many numbers may be held at the root.
        fallback: a stage that is asked once about a sample: after a twentieth of its time or 3 seconds, or before it
            would be given up. If it cannot decide the sample, the search goes on. Its bounds must be proofs.
    """

    name: ClassVar[str] = "branch-and-bound"
    proves: ClassVar[bool] = True
    batch_size: int = 16
    batch_subproblems: int = 256
    steps: int = 6
    root_steps: int = 8
    candidates: int = 3
    pairs: int = 100
    max_subproblems: int = 1_000_000
    max_elements: int = 2**28
    fallback: Stage | None = None

    def __post_init__(self) -> None:
        counts = (self.batch_subproblems, self.max_subproblems, self.max_elements, self.candidates)
        if min(counts) < 1 or min(self.steps, self.root_steps) < 0:
            raise ValueError(
                f"{self}: batch_subproblems, max_subproblems, max_elements and candidates must be >= 1, and steps and "
                f"root_steps >= 0"
            )
        if self.fallback is not None and not self.fallback.proves:
            raise ValueError(
                f"fallback is {self.fallback}, whose bounds are not proofs: take a stage that computes in double "
                f"precision, e.g. Milp()"
            )

    @property
    def title(self) -> str:
        return "branch-and-bound"

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        budget = problem.allotted()
        scale = memory_budget.scale(problem.x.device, self.memory)
        max_elements = max(1, int(scale * self.max_elements))
        memory = memory_budget.of(problem.x.device, self.memory)
        root, lowest, frontier = subproblems.begin(without_maxima(problem), self.root_steps, max_elements, memory)
        state = SearchState(problem.proof, lowest, budget)
        state.charge(torch.arange(len(problem), device=problem.x.device))
        values = sum(math.prod(node.shape) for node in problem.net.nodes)
        size = max(1, int(scale * min(self.batch_subproblems, AT_ONCE // values)))
        try:
            while True:
                given_up = state.budget.is_late | (state.split >= self.max_subproblems) | state.stuck
                given_up |= frontier.crowded(max_elements, len(problem))
                slow = given_up | state.budget.beyond(*PATIENCE)
                hard = state.stuck | frontier.of_samples(len(problem)) & slow
                hard &= ~state.asked & ~state.falsified & ~state.budget.is_late
                if self.fallback is not None and self.fallback.applies(problem) and bool(hard.any()):
                    state.asked |= hard
                    self._ask(self.fallback, problem, hard.nonzero().squeeze(1), state, generator)
                ended = (given_up | state.proved | state.falsified)[frontier.sample]
                state.close(frontier.take(ended & ~state.proved[frontier.sample]))
                frontier = frontier.take(~ended)
                if not len(frontier):
                    break
                order = frontier.bound.argsort()
                part, rest = frontier.take(order[:size]), frontier.take(order[size:])
                halves = memory_budget.attempt(functools.partial(self._split, part, root, state), last=len(part) == 1)
                if halves is None:
                    size = (len(part) + 1) // 2
                    state.charge(part.sample)
                    continue
                frontier = rest.join(halves)
                if self.pairs and state.split.sum() >= MANY * len(problem):
                    root, frontier = root.paired(frontier, self.pairs)
                state.charge(part.sample)
        except OutOfTime:
            state.close(frontier)
            state.charge(frontier.sample)
        late = state.budget.is_late | frontier.of_samples(len(problem))
        return Findings(
            bound=state.lowest, witness=state.witness, late=late, seconds=state.budget.spent, failed=state.failed
        )

    def _split(self, part: Subproblems, root: Root, state: SearchState) -> Subproblems:
        """Split sub-problems, each at a value of one neuron; returns the halves that stay open."""
        choice = branching.choose(root, part, self.candidates)
        state.try_points(part.sample, root.attacked(part, choice.points))
        leaves = root.leaves(part.take(~choice.is_splittable))
        halves = branching.halves(part, choice)
        halves = root.proved(root.ascend(halves, self.steps))
        is_closed = is_positive(halves.bound)
        state.close(leaves)
        state.close(halves.take(is_closed))
        state.close(halves.take(halves.bound.isnan()))
        state.split += torch.bincount(halves.sample, minlength=len(state.split))
        return halves.take(~is_closed)

    def _ask(
        self, stage: Stage, problem: Problem, samples: Tensor, state: SearchState, generator: torch.Generator
    ) -> None:
        """Ask another stage about some samples, [N] indices; by halves if it raises for them together."""
        raised, failed_before = None, list(state.failed)
        try:
            self._use(stage, problem, samples, state, generator)
        except OutOfTime:
            raise
        except Exception as error:  # it concerns these samples alone, and the search goes on, also for them
            raised = Raised.of(error)
        state.charge(samples)
        if raised is None:
            return
        alone = len(samples) == 1 or bool(state.budget.is_late[samples].all())
        try:
            for half in () if alone else samples.tensor_split(2):
                self._ask(stage, problem, half, state, generator)
        finally:
            # if no half failed, the message would otherwise be lost
            if alone or (failed_before == state.failed and not raised.memory):
                state.fail(samples, {stage.title: raised.message})

    def _use(
        self, stage: Stage, problem: Problem, samples: Tensor, state: SearchState, generator: torch.Generator
    ) -> None:
        """Keep the findings of another stage about some samples, [N] indices."""
        asked = replace(problem.select(samples), budget=state.budget.select(samples))
        findings = checked(stage(asked, generator), len(samples))
        if findings.bound is not None:
            state.fail(samples[findings.bound.isnan()], {stage.title: "the bound is NaN"})
            positive = findings.bound > 0
            state.proved[samples] = positive
            state.lowest[samples] = torch.where(positive, findings.bound, state.lowest[samples])
        if findings.witness is not None:
            state.try_points(samples, findings.witness)


class SearchState:
    """What a search knows about each of B samples, and the time that each has taken."""

    def __init__(self, proof: Problem, lowest: Tensor, budget: Budget) -> None:
        self.proof = proof
        self.lowest = lowest  # the least bound of the sub-problems that are closed or given up
        self.budget = budget
        self.witness = proof.x.clone()
        self.split = torch.zeros_like(lowest, dtype=torch.long)  # the number of sub-problems so far
        self.failed = [dict[str, str]() for _ in range(len(proof))]  # messages of other stages, by title
        self.asked, self.proved, self.falsified = (torch.zeros_like(lowest, dtype=torch.bool) for _ in range(3))

    @property
    def stuck(self) -> Tensor:
        """Which samples have a sub-problem that is given up with a bound that proves nothing, [B]."""
        return ~(self.lowest > 0) & ~self.proved

    def close(self, part: Subproblems) -> None:
        """Count sub-problems as closed or given up."""
        self.lowest = self.lowest.scatter_reduce(0, part.sample, part.bound, "amin")

    def charge(self, samples: Tensor) -> None:
        """Share the time since the last charge among samples, [N] indices: one for each piece of work."""
        self.budget = self.budget.charge(samples)

    def fail(self, samples: Tensor, messages: dict[str, str]) -> None:
        """Note that another stage failed on some samples, [N] indices."""
        for sample in samples.tolist():
            self.failed[sample] = {**self.failed[sample], **messages}

    def try_points(self, samples: Tensor, points: Tensor) -> None:
        """Keep the points, [N, *shape], that are counterexamples for their samples, [N] indices."""
        owners = self.proof.select(samples)
        points, is_counterexample = owners.counterexamples(owners.region.project(points.double()))
        places = is_counterexample.nonzero().squeeze(1)
        self.witness[samples[places]], self.falsified[samples[places]] = points[places], True
