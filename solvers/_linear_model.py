"""One linear model of an instance, for every MILP front end: x[g, k] = 1 where group g takes candidate k.

Rows are scaled by their limits. Unscaled, a bound of 1e-7 disappears in the solvers' feasibility tolerances (see
benchmarks/peers_infeasible.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import sparse

from impq_opt.exactness.sums import nearest_float
from impq_opt.instance.contract import Control
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.instance import Instance
from impq_opt.instance.row import Row
from impq_opt.solvers.lagrange.dual import dual_prices
from impq_opt.solvers.lagrange.hull import hull_steps
from impq_opt.solvers.lagrangian import break_step, price
from impq_opt.types import FloatArray, IntArray

__all__ = ["LinearModel", "build_model", "multipliers"]


_LARGEST = float(np.finfo(np.float64).max)
# More groups than a model holds, each at the largest float64.
_FAR = 1e12


@dataclass(frozen=True)
class LinearModel:
    """minimise objective @ z, rows @ z <= rights, equal @ z == equal_rights, 0 <= z <= 1.

    z holds one x for each group and candidate, and where costs couple groups one y for each pair of candidates of each
    pair of groups: y[e, k, l] = x[left, k] x[right, l] by its sums over k and over l, which is the tightest linear
    form of a single product (Padberg 1989). Only x needs to be integer.

    group, column (X,): what each x stands for. rows (R, Z), scaled; names (R,) and scales (R,) of the rows.
    """

    group: IntArray
    column: IntArray
    objective: FloatArray
    rows: FloatArray
    rights: FloatArray
    names: tuple[str, ...]
    scales: tuple[float, ...]
    equal: sparse.csr_matrix
    equal_rights: FloatArray
    objective_scale: float

    @property
    def integrality(self) -> FloatArray:
        """1 for each x, 0 for each y."""
        flags = np.zeros(len(self.objective))
        flags[: len(self.group)] = 1
        return flags

    def choice(self, z: FloatArray) -> IntArray:
        """Return the candidate (size,) with the largest x of each group."""
        table = np.full((int(self.group[-1]) + 1, int(self.column.max()) + 1), -1.0)
        table[self.group, self.column] = z[: len(self.group)]
        return table.argmax(axis=1)


def build_model(instance: Instance, tighten: float = 0.0) -> LinearModel:
    """Return the scaled model; ``tighten`` is the share of every limit that is held back."""
    widths = instance.widths
    group = np.repeat(np.arange(instance.size), widths)
    column = np.arange(len(group)) - np.repeat(np.cumsum(widths) - widths, widths)
    products = _Products(instance, group, column)

    def values(row: Row) -> FloatArray:
        return np.concatenate([row.table[group, column].astype(np.float64), products.cost(row.pairs)])

    objective, limits = values(instance.objective), instance.limits
    rooms = [Fraction(row.room) for row in limits]
    scales = [min(abs(nearest_float(room)), _LARGEST) or 1.0 for room in rooms]
    rows = [_scaled(values(row), scale) for row, scale in zip(limits, scales, strict=True)]
    signs = [_right(room, scale) for room, scale in zip(rooms, scales, strict=True)]
    rights = [sign - tighten * abs(sign) for sign in signs]
    # Costs are of a size that solvers take as it is.
    size = 1.0 if instance.objective.whole else float(np.abs(objective).max()) or 1.0
    equal, equal_rights = products.equations(instance.size)
    return LinearModel(
        group=group,
        column=column,
        objective=objective / size,
        rows=np.array(rows).reshape(len(rows), len(objective)),
        rights=np.array(rights),
        names=tuple(row.name for row in limits),
        scales=tuple(scales),
        equal=equal,
        equal_rights=equal_rights,
        objective_scale=size,
    )


def _scaled(values: FloatArray, scale: float) -> FloatArray:
    """Return a row in units of its limit.

    Where no entry is negative, one above the whole limit can never be chosen; capped, it stays so and the matrix stays
    well scaled.
    """
    with np.errstate(over="ignore"):
        row = values / scale
    return row if row.min(initial=0.0) < 0 else np.minimum(row, 2.0)


def _right(limit: Fraction, scale: float) -> float:
    """Return a limit in units of about itself: 1, -1 or 0, or more where float64 does not reach it."""
    if scale < _LARGEST:
        return float((limit > 0) - (limit < 0))
    return max(min(nearest_float(limit / Fraction(scale)), _FAR), -_FAR)


class _Products:
    """The products y of an instance: edge, left and right column (Y,) of each."""

    def __init__(self, instance: Instance, group: IntArray, column: IntArray) -> None:
        self.group, self.column, self.size = group, column, instance.size
        couplings = [row.pairs for row in (instance.objective, *instance.limits)]
        keys = [pairs.left * self.size + pairs.right for pairs in couplings if pairs is not None]
        self.keys = np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)
        self.ends = self.keys // self.size, self.keys % self.size
        left, right = (instance.widths[end] for end in self.ends)
        counts = left * right
        self.edge = np.repeat(np.arange(len(self.keys)), counts)
        number = np.arange(len(self.edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.left, self.right = number // right[self.edge], number % right[self.edge]
        self.count = len(self.edge)

    def cost(self, pairs: Coupling | None) -> FloatArray:
        """Return the cost (Y,) of each product."""
        values = np.zeros(self.count)
        if pairs is None:
            return values
        place = np.full(len(self.keys), -1)
        place[np.searchsorted(self.keys, pairs.left * self.size + pairs.right)] = np.arange(len(pairs))
        inside = np.flatnonzero(place[self.edge] >= 0)
        values[inside] = pairs.dense()[place[self.edge[inside]], self.left[inside], self.right[inside]]
        return values

    def equations(self, groups: int) -> tuple[sparse.csr_matrix, FloatArray]:
        """Return the rows that make one x of each group 1, and tie every y to its two x."""
        first = len(self.group)
        total = first + self.count
        one_hot = sparse.csr_matrix((np.ones(first), (self.group, np.arange(first))), shape=(groups, total))
        parts, rights = [one_hot], [np.ones(groups)]
        starts = np.searchsorted(self.group, np.arange(groups))
        for end, columns in zip(self.ends, (self.left, self.right), strict=True):
            if not self.count:
                break
            x = starts[end[self.edge]] + columns
            # one row for each edge and candidate of its end
            keys, row = np.unique(self.edge * total + x, return_inverse=True)
            ones = np.ones(self.count)
            sums = sparse.csr_matrix((ones, (row, first + np.arange(self.count))), shape=(len(keys), total))
            single = sparse.csr_matrix(
                (np.ones(len(keys)), (np.arange(len(keys)), keys % total)), shape=(len(keys), total)
            )
            parts.append(sums - single)
            rights.append(np.zeros(len(keys)))
        return sparse.csr_matrix(sparse.vstack(parts)), np.concatenate(rights)


def multipliers(instance: Instance, control: Control) -> dict[str, float]:
    """Return multipliers for a dual bound: from the hulls for one limit on single groups, else from the dual itself."""
    if not instance.budgets and not instance.coupled:
        steps = hull_steps(*instance.tables)
        return price(instance, steps, break_step(instance, steps))
    return dual_prices(instance, control)
