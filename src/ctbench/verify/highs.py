"""HiGHS, the solver of linear programs. Its answers are hints: `LinearProgram.safe_bound` makes proofs of them.

    solver = Solver(program, cost)
    solution = solver.solve(width, seconds=10.0)
    bound = program.safe_bound(cost, solution.y, width)    # a proof, whatever the solver answered

HiGHS stops by its own clock, after the given number of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ctbench.verify.linear_program import LinearProgram, Vector

TOLERANCE = 1e-9  # of rows and reduced costs: it decides how good a bound is, never whether it holds
SMALLEST = 1e-12  # the solver does not see smaller coefficients; the safe bound sees all


@dataclass(frozen=True, eq=False)
class Solution:
    """The answer of a solver about a linear program: hints, which may be missing or wrong."""

    x: Vector | None  # [n]
    y: Vector | None  # [m]: multipliers of the rows
    ray: Vector | None  # [m]: multipliers that may prove the program to be empty
    basis: Any = None  # at which a program with other widths may begin


class Solver:
    """HiGHS, for linear programs that differ only in their widths: each begins at a basis of another one."""

    def __init__(self, program: LinearProgram, cost: Vector) -> None:
        highspy = _highspy()
        highspy.Highs.resetGlobalScheduler(True)  # otherwise a process keeps the threads of its first run
        self.highs = highspy.Highs()
        options = {
            "output_flag": False,
            "threads": 1,
            "primal_feasibility_tolerance": TOLERANCE,
            "dual_feasibility_tolerance": TOLERANCE,
            "small_matrix_value": SMALLEST,
        }
        for name, value in options.items():
            if self.highs.setOptionValue(name, value) != highspy.HighsStatus.kOk:
                raise ValueError(f"HiGHS refuses the option {name}={value}: install a version that ctbench supports")
        columns, rows = len(program.width), len(program.lower)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = columns, rows
        model.col_cost_, model.col_lower_, model.col_upper_ = cost, np.zeros(columns), program.width
        model.row_lower_, model.row_upper_ = program.lower, program.upper
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.searchsorted(program.row, np.arange(rows + 1)).astype(np.int32)
        model.a_matrix_.index_ = program.column.astype(np.int32)
        model.a_matrix_.value_ = program.value
        self.highs.passModel(model)
        self.columns = np.arange(columns, dtype=np.int32)

    def solve(self, width: Vector, seconds: float, basis: Any = None) -> Solution:
        """Solve the program with these widths, in at most `seconds`."""
        highs = self.highs
        highs.changeColsBounds(len(width), self.columns, np.zeros(len(width)), width)
        if basis is not None:
            highs.setBasis(basis)
        highs.setOptionValue("time_limit", highs.getRunTime() + max(0.0, seconds))  # its clock runs on over all runs
        highs.run()
        solution, ray = highs.getSolution(), None
        if highs.modelStatusToString(highs.getModelStatus()) == "Infeasible":
            _, has_ray, ray = highs.getDualRay()
            ray = ray if has_ray else None
        return Solution(
            np.array(solution.col_value) if solution.value_valid else None,
            np.array(solution.row_dual) if solution.dual_valid else None,
            ray,
            highs.getBasis(),
        )


def _highspy() -> Any:
    import highspy  # here, because the import takes a moment

    return highspy
