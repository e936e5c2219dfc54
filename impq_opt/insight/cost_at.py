"""What any assignment of bits costs, by any cost term, whether or not it is among a problem's candidates."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.costs import LookupCost, TableCost
from impq_opt.errors import OptionError
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import PowerLaw
from impq_opt.instance.cost_row import CostRow, budget_rows
from impq_opt.problem.problem import Problem

__all__ = ["cost_at", "uniform_bits"]


def uniform_bits(problem: Problem, weights: float, activations: float) -> npt.NDArray[np.float64]:
    """Return one precision (G,) for all weight groups and one for all activation groups."""
    return np.where(problem.weights(), float(weights), float(activations))


def cost_at(problem: Problem, bits: npt.ArrayLike, cost: str) -> Fraction:
    """Return what cost term ``cost`` is at ``bits`` (G,), exactly, in its unit.

    Raises
    ------
    OptionError
        For other than one finite width >= 0 a group; or where the cost was declared as a table, which is known at the
        candidates alone.
    """
    widths = np.asarray(bits, dtype=np.float64)
    if widths.shape != (len(problem),):
        raise OptionError("must have one value per group", where="bits", value=widths.shape)
    if not (np.isfinite(widths).all() and (widths >= 0).all()):
        raise OptionError("must be finite and not negative", where="bits", value=float(widths.min()))
    if isinstance(problem.cost(cost), (TableCost, LookupCost)):
        return _largest(problem, budget_rows(problem, cost), _columns(problem, widths, cost))
    values, place = np.unique(widths, return_inverse=True)
    other = replace(
        problem,
        candidates=Candidates(tuple((float(b),) for b in values), place.astype(np.int64)),
        damage=PowerLaw(np.zeros(len(problem))),
        costs=tuple(term for term in problem.costs if not isinstance(term, (TableCost, LookupCost))),
        objective={"storage": 1},
        budgets={},
        pins={},
        ties=(),
        unmeasured=None,
    )
    return _largest(other, budget_rows(other, cost), np.zeros(len(problem), dtype=np.int64))


def _largest(problem: Problem, rows: list[tuple[str, CostRow]], choice: npt.NDArray[np.int64]) -> Fraction:
    return max(row.total(problem.candidates, choice) * row.quantum for _, row in rows)


def _columns(problem: Problem, widths: npt.NDArray[np.float64], cost: str) -> npt.NDArray[np.int64]:
    columns = problem.candidates.columns(widths)
    if (columns < 0).any():
        group = int((columns < 0).argmax())
        raise OptionError(
            f"cost {cost!r} is a table and has no value there",
            where=problem.names[group],
            value=float(widths[group]),
            hint=f"it has {', '.join(f'{b:g}' for b in problem.candidates.of(group))}",
        )
    return columns
