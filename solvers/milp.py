"""Mixed-integer programming through scipy's HiGHS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.instance.instance import Instance
from impq_opt.problem.allocation import Stop
from impq_opt.solvers._linear_model import build_model, multipliers

__all__ = ["Milp", "feasible_by_tightening"]


@dataclass(frozen=True)
class Milp(Solver):
    """HiGHS with gap 0 on rows scaled by their limits.

    Its own word is not a proof: it works in floating point with tolerances. The answer is checked exactly, and the
    lower bound is the Lagrangian one. Where the exact check fails, the limits are tightened a little and the model is
    solved again.

    HiGHS is given what is left of the time limit, but looks at it between steps only: presolve and the first linear
    program run to their end, seconds on large models. Ctrl-C is seen once it returns; so is a second one.
    """

    name: ClassVar[str] = "milp"
    summary: ClassVar[str] = "scipy's HiGHS, gap 0, rows scaled by their limits"
    proves: ClassVar[str] = "dual bound"
    supports: ClassVar[frozenset[str]] = frozenset({"damage", "budgets", "pairs"})

    def run(self, instance: Instance, control: Control) -> Claim:
        def once(tighten: float):  # type: ignore[no-untyped-def]
            model = build_model(instance, tighten)
            limits = [LinearConstraint(model.equal, model.equal_rights, model.equal_rights)]
            if len(model.rows):
                limits.append(LinearConstraint(model.rows, -np.inf, model.rights))
            options = {"mip_rel_gap": 0.0}
            if math.isfinite(control.deadline):
                options["time_limit"] = max(control.remaining, 0.01)
            result = milp(
                model.objective,
                constraints=limits,
                bounds=Bounds(0, 1),
                integrality=model.integrality,
                options=options,
            )
            reported = None if result.mip_dual_bound is None else result.mip_dual_bound * model.objective_scale
            choice = None if result.x is None else model.choice(result.x)
            return choice, Stop.TIME_LIMIT if result.status == 1 else Stop.COMPLETED, reported

        return feasible_by_tightening(instance, control, once)


def feasible_by_tightening(instance: Instance, control: Control, once) -> Claim:  # type: ignore[no-untyped-def]
    """Run ``once(tighten)`` until its answer meets the limits exactly, at most six times.

    ``once`` returns a choice or None, why it stopped, and the bound that the solver reports for itself.
    """
    tighten, reported, first = 0.0, None, None
    statistics: dict[str, object] = {}
    choice, stop = None, Stop.COMPLETED
    for attempt in range(6):
        choice, stop, reported = once(tighten)
        first = reported if attempt == 0 else first
        statistics = {"runs": attempt + 1, "tightened": tighten, "reported_bound": first}
        if choice is None or instance.is_feasible(choice) or control.expired():
            break
        tighten = 1e-12 if tighten == 0 else tighten * 30
    if choice is not None and not instance.is_feasible(choice):
        choice = None
    return Claim(choice, multipliers=multipliers(instance, control), stop=stop, statistics=statistics)
