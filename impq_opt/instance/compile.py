"""From a problem and its goals to what a solver sees: pins folded in, ties merged, costs in one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.sums import exact_int_sum, exact_sum, sum_rows_down
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.instance.cost_row import CostRow
from impq_opt.instance.coupling import Coupling, Places, couple
from impq_opt.instance.instance import Block, Instance, RankOne, Row, TieBlock
from impq_opt.instance.ties import member_damages
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["compile_instance"]


def compile_instance(
    problem: Problem,
    *,
    cost: CostRow,
    bound: Fraction | None = None,
    limit: int | None = None,
    budgets: Sequence[tuple[str, CostRow, int]] = (),
) -> Instance:
    """Turn a problem and its goals into what a solver sees.

    Parameters
    ----------
    cost : CostRow
        The cost that is minimised or, where it has a ``limit``, under which damage is.
    bound : Fraction, optional
        On damage, where a cost is minimised.
    limit : int, optional
        In quanta of ``cost``.
    budgets : sequence of (name, row, limit in quanta)
    """
    allowed = problem.allowed
    fixed, is_free, ties = _reduce(problem, allowed is not None)
    free = None if is_free is None else np.flatnonzero(is_free)
    size = len(problem) if free is None else len(free)
    constant = _constant_groups(is_free, ties)
    tie_blocks = _place_ties(problem, ties, free, allowed)
    columns = None if allowed is None else _allowed_columns(allowed)
    coupled = cost.coupled or any(row.coupled for _, row, _ in budgets)
    places = _places(problem, fixed, free, tie_blocks, columns) if coupled else None
    linear, pairs, base_cost = _uncoupled(problem, replace(cost, peaks=()) if cost.peaks else cost, places)
    base_damage = Fraction(0)
    if constant is not None:
        base_cost += exact_int_sum(linear.chosen(problem.candidates, fixed)[constant])
        base_damage = exact_sum(problem.damage.chosen(problem.candidates, fixed)[constant])
    blocks = list(_plain_blocks(problem, linear, free, _tied(size, tie_blocks), columns))
    blocks += [_merged_block(problem, linear, tie) for tie in tie_blocks]
    instance = Instance(
        problem=problem,
        row=cost,
        size=size,
        blocks=tuple(blocks),
        base_cost=base_cost,
        base_damage=base_damage,
        bound=bound,
        limit=limit,
        budgets=(),
        pairs=pairs,
        _fixed=fixed,
        _free=free,
        ties=tie_blocks,
        columns=columns,
    )
    rows = tuple(_budget(instance, constant, places, name, row, most) for name, row, most in budgets)
    peaks = cost.steps() if cost.peaks else []
    steps = tuple(_budget(instance, constant, places, name, row, limit or 0) for name, row in peaks)
    if limit is not None:  # what is limited of a peak is each of its steps
        rows, steps = (*steps, *rows), ()
    return replace(instance, budgets=rows, peaks=steps) if rows or steps else instance


def _uncoupled(problem: Problem, row: CostRow, places: Places | None) -> tuple[CostRow, Coupling | None, int]:
    """Return the part of ``row`` that belongs to single groups, the pairs, and the constant."""
    if places is None or not row.coupled:
        return (replace(row, constant=0) if row.constant else row), None, row.constant
    if row not in _COUPLED:
        _COUPLED[row] = couple(problem, row, places)
    return _COUPLED[row]


# A row is of one problem, whose pins and ties say where its groups are: what is made of it is kept as long as the row.
_COUPLED: WeakKeyDictionary[CostRow, tuple[CostRow, Coupling | None, int]] = WeakKeyDictionary()


def _allowed_columns(allowed: npt.NDArray[np.bool_]) -> IntArray:
    """Return the columns (G, K) that are allowed, in their order, then the last of them again."""
    first = np.argsort(~allowed, axis=1, kind="stable")
    last = allowed.sum(axis=1) - 1
    return np.take_along_axis(first, np.minimum(np.arange(allowed.shape[1]), last[:, None]), axis=1)


def _widths(problem: Problem, columns: IntArray | None) -> IntArray:
    """Return how many candidates (G,) each group may take; ``columns`` are those of :class:`Instance`."""
    if columns is None:
        return problem.candidates.counts(len(problem))
    return np.asarray((columns != columns[:, -1:]).sum(axis=1) + 1)


def _places(
    problem: Problem,
    fixed: IntArray,
    free: IntArray | None,
    ties: tuple[TieBlock, ...],
    columns: IntArray | None,
) -> Places:
    """Return where the problem's groups are among the free ones."""
    count = len(problem)
    widths = _widths(problem, columns)
    if free is None:
        every = np.arange(count)
        return Places(every, np.zeros(count, dtype=np.int64), None, widths, every)
    place = np.full(count, -1)
    place[free] = np.arange(len(free))
    if not ties:
        return Places(place, fixed, columns, widths[free], free)
    if columns is None:
        columns = np.minimum(np.arange(problem.candidates.width), widths[:, None] - 1)
    columns = columns.copy()
    widths = widths[free]
    for tie in ties:
        place[tie.members] = tie.groups[:, None]
        widths[tie.groups] = tie.columns.shape[1]
        padded = np.minimum(np.arange(columns.shape[1]), tie.columns.shape[1] - 1)
        columns[tie.members] = tie.columns[:, padded]
    return Places(place, fixed, columns, widths, free)


def _reduce(problem: Problem, listed: bool) -> tuple[IntArray, npt.NDArray[np.bool_] | None, list[tuple[int, ...]]]:
    """Return the columns of pinned groups (G,), which groups stay free (or None: all, and not ``listed``), and ties."""
    if not (problem.pins or problem.ties or listed):
        return np.zeros(0, dtype=np.int64), None, []
    fixed = np.zeros(len(problem), dtype=np.int64)
    is_free = np.ones(len(problem), dtype=bool)
    for group, column in problem.pins.items():
        fixed[group], is_free[group] = column, False
    open_ties = []
    for tie in problem.ties:
        pinned = [g for g in tie if g in problem.pins]
        if pinned:
            (which,) = (
                shared
                for shared, column in problem.candidates.tied(pinned[0]).items()
                if column == problem.pins[pinned[0]]
            )
            for group in tie:
                fixed[group], is_free[group] = problem.candidates.tied(group)[which], False
        else:
            is_free[list(tie[1:])] = False
            open_ties.append(tie)
    return fixed, is_free, open_ties


def _constant_groups(is_free: npt.NDArray[np.bool_] | None, ties: list[tuple[int, ...]]) -> IntArray | None:
    """Return the pinned groups, or None where there are none."""
    if is_free is None:
        return None
    constant = ~is_free
    for tie in ties:
        constant[list(tie)] = False
    return np.flatnonzero(constant)


def _place_ties(
    problem: Problem, ties: list[tuple[int, ...]], free: IntArray | None, allowed: npt.NDArray[np.bool_] | None
) -> tuple[TieBlock, ...]:
    """Gather ties whose members may take the same candidates, so that each kind is merged in one go."""
    if not ties or free is None:
        return ()
    kinds: dict[tuple[tuple[int, tuple[tuple[tuple[float, str], int], ...]], ...], list[tuple[int, ...]]] = {}
    for tie in ties:
        taken = [tuple(problem.candidates.tied(g, allowed).items()) for g in tie]
        kind = zip(map(problem.candidates.number_of, tie), taken, strict=True)
        kinds.setdefault(tuple(kind), []).append(tie)
    blocks = []
    for kind_of, members in kinds.items():
        columns_of = [dict(taken) for _, taken in kind_of]
        common = [which for which in columns_of[0] if all(which in other for other in columns_of[1:])]
        columns = np.array([[own[which] for which in common] for own in columns_of], dtype=np.int64)
        array = np.array(members, dtype=np.int64)
        blocks.append(TieBlock(np.searchsorted(free, array[:, 0]), array, columns))
    return tuple(blocks)


def _plain_blocks(
    problem: Problem,
    cost: CostRow,
    free: IntArray | None,
    tied: npt.NDArray[np.bool_] | None,
    columns: IntArray | None,
) -> Iterator[Block]:
    """Yield the blocks of the groups that are neither pinned nor tied."""
    places: IntArray | slice = slice(None)
    groups: IntArray | slice = slice(None)
    if free is not None:
        places = np.arange(len(free)) if tied is None else np.flatnonzero(~tied)
        groups = free[places]
        if len(groups) == 0:
            return
    candidates = problem.candidates
    structured = isinstance(problem.damage, PowerLaw) and cost.table is None
    if candidates.set_of is None and columns is None:
        yield _block(problem, cost, places, groups, candidates.sets[0], structured)
        return
    sets = candidates.numbers(len(problem))[groups]
    if structured:
        for number in np.unique(sets).tolist():
            inside = np.flatnonzero(sets == number)
            place = inside if isinstance(places, slice) else places[inside]
            group = inside if isinstance(groups, slice) else groups[inside]
            yield _block(problem, cost, place, group, candidates.sets[number], structured)
        return
    widths = _widths(problem, columns)[groups]
    if columns is not None:
        columns = columns[groups]
    yield _ragged_block(problem, cost, places, groups, sets, widths, columns)


def _block(
    problem: Problem,
    cost: CostRow,
    places: IntArray | slice,
    groups: IntArray | slice,
    bits: Sequence[float],
    structured: bool,
) -> Block:
    if structured:
        assert isinstance(problem.damage, PowerLaw) and cost.slope is not None
        return Block(
            places,
            RankOne(cost.slope[groups], cost.levels(bits)),
            RankOne(problem.damage.sensitivity[groups], problem.damage.scale(bits)),
        )
    return Block(places, cost.dense(groups, bits), problem.damage.at(groups, bits))


def _ragged_block(
    problem: Problem,
    cost: CostRow,
    places: IntArray | slice,
    groups: IntArray | slice,
    sets: IntArray,
    widths: IntArray,
    columns: IntArray | None,
) -> Block:
    """Return one block of tables for groups with several candidate sets, of which they may take ``columns`` (n, K)."""
    width = problem.candidates.width
    if cost.table is not None and cost.slope is None and isinstance(problem.damage, DamageTable):
        cost_table, damage_table = cost.table[groups][:, :width], problem.damage.values[groups][:, :width]
    else:
        chosen = np.arange(len(problem))[groups]
        cost_table = np.zeros((len(chosen), width), dtype=np.int64)
        damage_table = np.zeros((len(chosen), width))
        for number in np.unique(sets).tolist():
            inside = np.flatnonzero(sets == number)
            bits = problem.candidates.sets[number]
            cost_table[inside, : len(bits)] = cost.dense(chosen[inside], bits)
            damage_table[inside, : len(bits)] = problem.damage.at(chosen[inside], bits)
    if columns is not None:
        cost_table = np.take_along_axis(cost_table, columns, axis=1)
        damage_table = np.take_along_axis(damage_table, columns, axis=1)
    return Block(places, cost_table, damage_table, None if bool((widths == width).all()) else widths)


def _merged_block(problem: Problem, cost: CostRow, tie: TieBlock) -> Block:
    """Return the block of tied groups: costs added exactly, damages added downwards.

    A float64 cannot hold every sum of float64s. Rounded down, the sum relaxes the bound, so lower bounds stay valid;
    whether a choice is feasible is decided on the members (:meth:`Instance.damage_of`).
    """
    costs = [
        cost.dense(members, problem.candidates.of(int(members[0])))[:, columns]
        for members, columns in zip(tie.members.T, tie.columns, strict=True)
    ]
    damages = member_damages(problem, tie).transpose(1, 0, 2)
    return Block(tie.groups, np.sum(costs, axis=0), sum_rows_down(damages))


def _budget(
    instance: Instance, constant: IntArray | None, places: Places | None, name: str, full: CostRow, limit: int
) -> Row:
    """Return a row beside the objective, on the free groups."""
    problem = instance.problem
    row, pairs, base = _uncoupled(problem, full, places)
    blocks = list(_plain_blocks(problem, row, instance._free, _tied(instance.size, instance.ties), instance.columns))
    blocks += [_merged_block(problem, row, tie) for tie in instance.ties]
    table = np.empty((instance.size, int(instance.widths.max(initial=1))), dtype=np.int64)
    for block in blocks:
        part, _ = block.tables()
        table[block.groups] = part[:, np.minimum(np.arange(table.shape[1]), part.shape[1] - 1)]
    if constant is not None:
        base += exact_int_sum(row.chosen(problem.candidates, instance._fixed)[constant])
    return Row(name, table, base, limit, row.quantum, pairs, "+".join(row.weights))


def _tied(size: int, ties: tuple[TieBlock, ...]) -> npt.NDArray[np.bool_] | None:
    if not ties:
        return None
    tied = np.zeros(size, dtype=bool)
    for tie in ties:
        tied[tie.groups] = True
    return tied
