"""The stage that decides samples by integer programs: the exact least margin, until its sign is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.domains import crown
from ctbench.graph import Graph
from ctbench.graph.ops import Max, PiecewiseLinear
from ctbench.regions import Box, Region
from ctbench.time_budget import OutOfTime
from ctbench.verify.integer_program import Program, one_box
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage
from ctbench.verify.worst_case import Search, unstable


@dataclass(frozen=True, kw_only=True)
class Milp(Stage):
    """The exact least margin, class by class in the order of CROWN's bounds, until its sign is known.

    When the time is up the bound is the best one so far; the sample stays open if that is not positive.

    Args:
        unstable: samples with more unstable neurons than this keep the bound of CROWN.
        share: the share of a sample's time that the stage may take, in (0, 1].
    """

    name: ClassVar[str] = "milp"
    proves: ClassVar[bool] = True
    batch_size: int = 1  # samples are solved one by one, so that each has its own time and its own error
    share: float = 1.0
    unstable: int = 500

    @property
    def title(self) -> str:
        return "milp"

    def applies(self, problem: Problem) -> bool:
        ops = (node.op for node in problem.net.nodes if node.op.relaxed)
        return isinstance(problem.region, Box) and all(isinstance(op, PiecewiseLinear | Max) for op in ops)

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        proof = problem.proof
        graph, box = proof.net.to(torch.float64).map(Tensor.cpu), _double_box(proof.region)
        budget = problem.allotted(self.share)
        witness, bounds = proof.x.clone(), list[Tensor]()
        late = torch.zeros(len(proof), dtype=torch.bool)
        for index, forms in enumerate(proof.spec.cpu()):
            sample = torch.tensor([index])
            x, end = proof.x[sample].cpu(), budget.select(sample).end
            try:
                bound, point = self._decide(graph, box.take(sample), forms, x, end)
            except OutOfTime:
                if not bounds:
                    raise
                bound, point, late[index] = torch.full_like(bounds[0], -torch.inf), None, True
            bounds.append(bound)
            if point is not None:
                witness[index] = point.to(witness)
            budget = budget.charge(sample)
        bound = torch.stack(bounds).to(proof.x.device)
        late = late.to(proof.x.device) | budget.is_late
        return Findings(bound=bound, witness=witness, late=late, seconds=budget.spent)

    def _decide(self, graph: Graph, box: Box, forms: Tensor, x: Tensor, end: float) -> tuple[Tensor, Tensor | None]:
        """A lower bound of the least of the forms [S, K] of a sample, and a point at which one of them is negative."""
        inner = crown.boxes(graph, box)
        bounds = crown.lower_bounds(graph, box, forms.unsqueeze(0), inner=inner)[0]
        if bool((bounds > 0).all()) or unstable(graph, inner) > self.unstable:
            return bounds.amin(), None
        program = Program.of(graph, box, inner)
        for k in bounds.argsort().tolist():
            if bounds[k] > 0:
                break
            search = Search(program, forms[k], end)
            search.visit(x)
            least = search.minimum(stop_above=0.0, stop_below=0.0)
            bounds[k] = bounds[k].clamp(min=least.lower)
            if least.upper < 0:
                return bounds.amin(), least.point
        return bounds.amin(), None


def _double_box(region: Region) -> Box:
    box = one_box(region)
    return Box(box.lower.double().cpu(), box.upper.double().cpu())
