"""One linear model of an instance, for every MILP front end: x[g, k] = 1 where group g takes candidate k.

Rows are scaled by their limits. Unscaled, a bound of 1e-7 disappears in the solvers' feasibility tolerances (see
benchmarks/peers_infeasible.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from impq_opt.instance import Direction, Instance
from impq_opt.solvers._hull import hull_steps
from impq_opt.solvers.lagrangian import break_step, price

__all__ = ["LinearModel", "build_model", "multipliers"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearModel:
    """minimise objective @ x, rows @ x <= 1 each, exactly one x of each group.

    group, column (V,): what each variable stands for. rows (R, V), scaled; names (R,) and scales (R,) of the rows.
    """

    group: IntArray
    column: IntArray
    objective: FloatArray
    rows: FloatArray
    rights: FloatArray
    names: tuple[str, ...]
    scales: tuple[float, ...]
    one_hot: sparse.csr_matrix
    objective_scale: float

    def choice(self, x: FloatArray) -> IntArray:
        """Return the candidate (size,) with the largest x of each group."""
        table = np.full((self.one_hot.shape[0], int(self.column.max()) + 1), -1.0)
        table[self.group, self.column] = x
        return table.argmax(axis=1)


def build_model(instance: Instance, tighten: float = 0.0) -> LinearModel:
    """Return the scaled model; ``tighten`` is the share of every limit that is held back."""
    widths = instance.widths
    group = np.repeat(np.arange(instance.size), widths)
    column = np.arange(len(group)) - np.repeat(np.cumsum(widths) - widths, widths)
    cost, damage = (table[group, column] for table in instance.tables)
    limits: list[tuple[str, FloatArray, Fraction]] = []
    if instance.direction is Direction.COST:
        objective = cost.astype(np.float64)
        if instance.bound is not None:
            limits.append(("bound", damage, instance.bound - instance.base_damage))
    else:
        assert instance.limit is not None
        objective = damage
        limits.append(("budget", cost.astype(np.float64), Fraction(instance.limit - instance.base_cost)))
    for budget in instance.budgets:
        limits.append(
            (budget.name, budget.table[group, column].astype(np.float64), Fraction(budget.limit - budget.base))
        )
    scales = [float(limit) if limit > 0 else 1.0 for _, _, limit in limits]
    # An entry above its whole limit can never be chosen; capped, it stays so and the matrix stays well scaled.
    rows = [np.minimum(values / scale, 2.0) for (_, values, _), scale in zip(limits, scales, strict=True)]
    rights = [(1.0 if limit > 0 else 0.0) * (1 - tighten) for _, _, limit in limits]
    size = float(np.abs(objective).max()) or 1.0
    return LinearModel(
        group=group,
        column=column,
        objective=objective / (size if instance.direction is Direction.DAMAGE else 1.0),
        rows=np.array(rows).reshape(len(rows), len(group)),
        rights=np.array(rights),
        names=tuple(name for name, _, _ in limits),
        scales=tuple(scales),
        one_hot=sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group))))),
        objective_scale=size if instance.direction is Direction.DAMAGE else 1.0,
    )


def multipliers(instance: Instance, model: LinearModel) -> dict[str, float]:
    """Return multipliers for a dual bound: from the hulls for one limit, from the LP for several."""
    if not instance.budgets:
        steps = hull_steps(*instance.tables)
        return price(instance, steps, break_step(instance, steps))
    found = linprog(
        model.objective,
        A_ub=model.rows,
        b_ub=model.rights,
        A_eq=model.one_hot,
        b_eq=np.ones(instance.size),
        method="highs",
    )
    if found.status != 0:
        return {}
    return {
        name: max(0.0, -float(value)) * model.objective_scale / scale
        for name, value, scale in zip(model.names, found.ineqlin.marginals, model.scales, strict=True)
    }
