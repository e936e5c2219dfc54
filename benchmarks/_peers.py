"""Peers on the same multiple-choice problem: rows scaled by the bound, gap 0 asked, answers checked exactly."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing.connection import Connection

import numpy as np

from impq_opt.exactness.sums import exact_sum


@dataclass(frozen=True)
class Outcome:
    """What a peer did: seconds to solve (building the model not counted), whether it claims an optimum, its answer."""

    seconds: float
    optimal: bool
    choice: np.ndarray | None

    def check(self, cost: np.ndarray, damage: np.ndarray, bound: float) -> tuple[int | None, float]:
        """Return the cost, and the exact damage as a multiple of the bound."""
        if self.choice is None:
            return None, float("nan")
        rows = np.arange(len(cost))
        total = exact_sum(damage[rows, self.choice])
        return int(cost[rows, self.choice].sum()), float(total / Fraction(bound))


def apart(peer: Callable[..., Outcome], cost: np.ndarray, damage: np.ndarray, bound: float, limit: float) -> Outcome:
    """Run a peer in a process of its own, ended when its limit, and a minute to build its model, are over.

    Some look at their time limit between long steps only; what they had found by then is lost with the process.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there, peer, cost, damage, bound, limit), daemon=True)
    process.start()
    there.close()
    try:
        found: Outcome = here.recv() if here.poll(limit + 60.0) else Outcome(limit, False, None)
        return found if found.optimal else replace(found, seconds=limit)
    finally:
        process.kill()
        process.join()


def _report(into: Connection, peer: Callable[..., Outcome], *question: object) -> None:
    into.send(peer(*question))


def highs(cost: np.ndarray, damage: np.ndarray, bound: float, limit: float, *, scaled: bool = True) -> Outcome:
    import highspy

    groups, width = cost.shape
    solver = highspy.Highs()
    for name, value in (("output_flag", False), ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0), ("time_limit", limit)):
        solver.setOptionValue(name, value)
    model, columns = highspy.HighsLp(), groups * width
    model.num_col_, model.num_row_ = columns, groups + 1
    model.col_cost_ = cost.ravel().astype(np.float64)
    model.col_lower_, model.col_upper_ = np.zeros(columns), np.ones(columns)
    model.integrality_ = [highspy.HighsVarType.kInteger] * columns
    scale = bound if scaled else 1.0
    model.row_lower_ = np.concatenate([np.ones(groups), [-highspy.kHighsInf]])
    model.row_upper_ = np.concatenate([np.ones(groups), [bound / scale]])
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.arange(columns + 1, dtype=np.int32) * 2
    index = np.empty((columns, 2), dtype=np.int32)
    index[:, 0], index[:, 1] = np.repeat(np.arange(groups), width), groups
    values = np.ones((columns, 2))
    # An entry above twice the limit can never be chosen; capped, it keeps the matrix well scaled.
    values[:, 1] = np.minimum(damage.ravel() / scale, 2.0) if scaled else damage.ravel()
    model.a_matrix_.index_, model.a_matrix_.value_ = index.ravel(), values.ravel()
    solver.passModel(model)
    started = time.perf_counter()
    solver.run()
    seconds = time.perf_counter() - started
    found = np.array(solver.getSolution().col_value)
    choice = found.reshape(groups, width).argmax(axis=1) if found.size == columns else None
    return Outcome(seconds, solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, choice)


def cbc(cost: np.ndarray, damage: np.ndarray, bound: float, limit: float, *, scaled: bool = True) -> Outcome:
    import pulp

    groups, width = cost.shape
    scale = bound if scaled else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pulp.LpProblem("allocation", pulp.LpMinimize)
        x = [[pulp.LpVariable(f"x{g}_{k}", cat="Binary") for k in range(width)] for g in range(groups)]
        entries = np.minimum(damage / scale, 2.0) if scaled else damage
        model += pulp.LpAffineExpression((x[g][k], int(cost[g, k])) for g in range(groups) for k in range(width))
        for row in x:
            model += pulp.lpSum(row) == 1
        model += (
            pulp.LpAffineExpression((x[g][k], float(entries[g, k])) for g in range(groups) for k in range(width))
            <= bound / scale
        )
        solver = pulp.PULP_CBC_CMD(msg=False, timeLimit=limit, gapRel=0.0, threads=1)
        started = time.perf_counter()
        model.solve(solver)
        seconds = time.perf_counter() - started
    values = np.array([[v.value() or 0.0 for v in row] for row in x])
    # LpStatusOptimal is also said of a time-out with an answer; the status of the solution tells.
    optimal = model.sol_status == pulp.LpSolutionOptimal and seconds < limit
    return Outcome(seconds, optimal, values.argmax(axis=1) if values.any() else None)


def cp_sat(cost: np.ndarray, damage: np.ndarray, bound: float, limit: float, *, steps: float = 1e9) -> Outcome:
    """Damages become whole multiples of bound / steps, the nearest ones: CP-SAT takes no floats."""
    from ortools.sat.python import cp_model

    groups, width = cost.shape
    whole = np.rint(np.minimum(damage / bound, 2.0) * steps).astype(np.int64)
    model = cp_model.CpModel()
    x = [[model.new_bool_var("") for _ in range(width)] for _ in range(groups)]
    for row in x:
        model.add_exactly_one(row)
    flat = [v for row in x for v in row]
    model.add(cp_model.LinearExpr.weighted_sum(flat, whole.ravel().tolist()) <= int(steps))
    model.minimize(cp_model.LinearExpr.weighted_sum(flat, cost.ravel().tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = 2
    started = time.perf_counter()
    status = solver.solve(model)
    seconds = time.perf_counter() - started
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Outcome(seconds, False, None)
    values = np.array([solver.boolean_value(v) for v in flat]).reshape(groups, width)
    return Outcome(seconds, status == cp_model.OPTIMAL, values.argmax(axis=1))


# The module that each takes.
NEEDS: dict[Callable[..., Outcome], str] = {highs: "highspy", cbc: "pulp", cp_sat: "ortools"}
