"""The integer program of the field, written with PuLP and solved by CBC or HiGHS."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pulp

from impq_opt.errors import MissingPackageError, OptionError
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Stop
from impq_opt.solvers._linear_model import build_model
from impq_opt.solvers.milp import feasible_by_tightening

__all__ = ["Ilp"]


@dataclass(frozen=True)
class Ilp(Solver):
    """PuLP's model, as most bit allocators write it, with rows scaled and the answer checked.

    The backend is given what is left of the time limit once the model is written, which takes PuLP seconds where it is
    large, and looks at it between steps only. Ctrl-C in a terminal reaches CBC, a program of its own, too, which then
    ends with its best answer; sent to this process alone it is seen once CBC has ended, and a second one raises.

    Parameters
    ----------
    backend : {"cbc", "highs"}
        CBC ships with PuLP; HiGHS needs ``highspy``.

    Raises
    ------
    OptionError
        For another backend.
    MissingPackageError
        When run, where the backend is not installed.
    """

    name: ClassVar[str] = "ilp"
    summary: ClassVar[str] = "PuLP with CBC (or HiGHS), rows scaled by their limits"
    proves: ClassVar[str] = "dual bound"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs"})

    backend: str = "cbc"

    def __post_init__(self) -> None:
        if self.backend not in ("cbc", "highs"):
            raise OptionError("must be 'cbc' or 'highs'", where="ilp.backend", value=self.backend)

    def run(self, instance: Instance, control: Control) -> Claim:
        def once(tighten: float):  # type: ignore[no-untyped-def]
            model = build_model(instance, tighten)
            program = pulp.LpProblem("allocation", pulp.LpMinimize)
            x = [program.add_variable(f"x{i}", cat=pulp.LpBinary) for i in range(len(model.group))]
            # A product of two binaries that its sums tie down needs no integrality.
            x += [program.add_variable(f"y{i}", 0, 1) for i in range(len(model.objective) - len(model.group))]
            program += pulp.LpAffineExpression(zip(x, model.objective.tolist(), strict=True))
            ends, entries = (
                model.equal.indptr.tolist(),
                list(zip(model.equal.indices.tolist(), model.equal.data.tolist(), strict=True)),
            )
            for first, last, right in zip(ends[:-1], ends[1:], model.equal_rights.tolist(), strict=True):
                program += pulp.LpAffineExpression((x[i], value) for i, value in entries[first:last]) == right
            for row, right in zip(model.rows.tolist(), model.rights.tolist(), strict=True):
                program += pulp.LpAffineExpression(zip(x, row, strict=True)) <= right
            program.solve(self._backend(control))
            # PuLP's status calls a time-out with an answer Optimal; sol_status tells them apart (pulp issue 711).
            if program.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
                return None, Stop.TIME_LIMIT if control.expired() else Stop.COMPLETED, None
            values = np.array([v.value() or 0.0 for v in x])
            done = program.sol_status == pulp.LpSolutionOptimal
            return model.choice(values), Stop.COMPLETED if done else Stop.TIME_LIMIT, None

        return feasible_by_tightening(instance, control, once)

    def _backend(self, control: Control):  # type: ignore[no-untyped-def]
        limit = max(control.remaining, 0.01) if math.isfinite(control.deadline) else None
        if self.backend == "cbc":
            with warnings.catch_warnings():
                # PuLP 3 ships this CBC and says that PuLP 4 will not; pyproject.toml stays below 4.
                warnings.simplefilter("ignore", DeprecationWarning)
                return pulp.PULP_CBC_CMD(msg=False, timeLimit=limit, gapRel=0.0, gapAbs=0.0)
        backend = pulp.HiGHS(msg=False, timeLimit=limit, gapRel=0.0, gapAbs=0.0)
        if not backend.available():
            raise MissingPackageError("highspy", "ilp with backend='highs'", "highspy")
        return backend
