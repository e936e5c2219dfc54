"""An instance in which some groups are settled: what is solved is smaller, what is checked stays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum, exact_sum
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.instance import Block, Instance, Row, TieBlock
from impq_opt.types import IntArray

__all__ = ["settle"]


def settle(instance: Instance, groups: IntArray, columns: IntArray) -> Instance:
    """Return the instance of the other groups, where ``groups`` (n,) take ``columns`` (n,).

    Pairs with one settled end become costs of the other.
    """
    size = instance.size
    column = np.zeros(size, dtype=np.int64)
    column[groups] = columns
    settled = np.zeros(size, dtype=bool)
    settled[groups] = True
    rest = np.flatnonzero(~settled)
    cost, damage = instance.tables
    new_cost, pairs, added = _settled_row(cost, instance.pairs, column, settled, rest)

    def left(row: Row) -> Row:
        table, coupling, more = _settled_row(row.table, row.pairs, column, settled, rest)
        return replace(row, entries=table, pairs=coupling, base=row.base + more)

    budgets = map(left, instance.budgets)
    fixed = instance.lift(column)
    place = np.full(size, -1)
    place[rest] = np.arange(len(rest))
    ties = []
    held = exact_sum(damage[groups, columns])
    for tie in instance.ties:
        stays = ~settled[tie.groups]
        if stays.any():
            ties.append(TieBlock(place[tie.groups[stays]], tie.members[stays], tie.columns))
        gone = tie.groups[~stays]
        if len(gone):
            # A tie's table is rounded down; what is settled is known exactly.
            members = tie.members[~stays].reshape(-1)
            exact = exact_sum(instance.problem.damage.chosen(instance.problem.candidates, fixed)[members])
            held += exact - exact_sum(damage[gone, column[gone]])
    free = instance.representatives
    widths = instance.widths[rest]
    full = bool((widths == cost.shape[1]).all())
    return replace(
        instance,
        size=len(rest),
        blocks=(Block(slice(None), new_cost, damage[rest], None if full else widths),),
        base_cost=instance.base_cost + added,
        base_damage=instance.base_damage + held,
        # Others are kept whatever is chosen.
        budgets=tuple(b for b in budgets if b.pairs is not None or b.table.any() or b.broken_by(b.base)),
        peaks=tuple(map(left, instance.peaks)),
        pairs=pairs,
        _fixed=fixed,
        _free=free[rest],
        ties=tuple(ties),
    )


def _settled_row(
    table: IntArray, pairs: Coupling | None, column: IntArray, settled: npt.NDArray[np.bool_], rest: IntArray
) -> tuple[IntArray, Coupling | None, int]:
    """Return the table of ``rest``, the pairs inside it, and what the settled groups cost."""
    groups = np.flatnonzero(settled)
    added = exact_int_sum(table[groups, column[groups]])
    if pairs is None:
        return table[rest], None, added
    left_settled, right_settled = settled[pairs.left], settled[pairs.right]
    both = np.flatnonzero(left_settled & right_settled)
    added += exact_int_sum(pairs.at(column)[both]) if len(both) else 0
    whole = table.copy()
    for edges, free, held, turned in (
        (np.flatnonzero(left_settled & ~right_settled), pairs.right, pairs.left, False),
        (np.flatnonzero(right_settled & ~left_settled), pairs.left, pairs.right, True),
    ):
        if len(edges) == 0:
            continue
        columns = column[held[edges]]
        if pairs.coefficient is not None:
            factor = pairs.coefficient[edges] * pairs.levels[held[edges], columns]
            values = factor[:, None] * pairs.levels[free[edges]]
        else:
            dense = pairs.dense(edges)
            lines = np.arange(len(edges))
            values = dense[lines, :, columns] if turned else dense[lines, columns, :]
        # A leaf has one neighbour; where a group has several, add them one after the other.
        if len(np.unique(free[edges])) == len(edges):
            whole[free[edges]] += values
        else:
            np.add.at(whole, free[edges], values)
    inside = np.flatnonzero(~left_settled & ~right_settled)
    if len(inside) == 0:
        return whole[rest], None, added
    place = np.full(len(table), -1)
    place[rest] = np.arange(len(rest))
    kept = Coupling(
        place[pairs.left[inside]],
        place[pairs.right[inside]],
        pairs.levels[rest],
        None if pairs.coefficient is None else pairs.coefficient[inside],
        None if pairs.tables is None else pairs.tables[inside],
    )
    return whole[rest], kept, added
