"""The least priced sum of an instance whose costs couple groups, never above the true one.

With a price for each row the priced sum over a choice is a function of one and two variables. Its minimum is taken in
two steps: leaves of the graph into their only neighbours, all at once, and the rest by elimination, among the choices
that keep the limits on few groups; for those floats are floored to whole numbers of a power of two first, so that no
later sum rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from impq_opt.exactness import native
from impq_opt.exactness.sums import exact_int_sum, exact_sum
from impq_opt.instance.coupling import Coupling
from impq_opt.instance.elimination import Factor, least_sum, strip_leaves
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import LocalLimit, local_limits
from impq_opt.instance.row import Row, Table
from impq_opt.types import FloatArray, IntArray

__all__ = ["Priced", "above_least", "least_priced"]


_EPS = 2.0**-53
# Smaller than the largest float64: what overflows still gives a valid, lower, bound.
_HUGE = 1e290
# Leaves a chunk: its tables (n, K, K) stay in the cache.
_CHUNK = 1 << 12


# Rows of an instance, and what a quantum of each weighs, or a unit of damage: >= 0.
Priced = Sequence[tuple[Row, float]]


def least_priced(instance: Instance, priced: Priced) -> Fraction:
    """Return a lower bound on the sum of ``priced`` rows over all choices of the free groups, their bases left out.

    Choices that break a limit on few groups (:mod:`impq_opt.instance.local`) do not count.
    """
    singles, shift = _singles(instance, priced)
    parts = [(row.pairs, price) for row, price in priced if row.pairs is not None and price > 0]
    for pairs, price in parts:
        if pairs.tables is not None and pairs.tables.min(initial=0) < 0:
            shift += Fraction(price) * exact_int_sum(np.minimum(pairs.tables.min(axis=(1, 2)), 0))
    rows = 1 + len(instance.budgets)  # besides damage
    # Each part brings an int -> float, a shift, a product and a sum, on top of what the singles bring.
    factor = 1.0 - (8 + 4 * rows + 3 * len(parts)) * _EPS
    local = local_limits(instance)
    if not parts and not local:
        return shift + exact_sum(singles.min(axis=1) * factor)
    left, right = _union([pairs for pairs, _ in parts], instance.size)
    return shift + _least(singles, left, right, parts, local, factor) - Fraction(instance.size * rows, 1 << 1074)


def _singles(instance: Instance, priced: Priced) -> tuple[FloatArray, Fraction]:
    """Return the priced table (size, K) of single groups, not negative, and the exact sum that was taken out of it."""
    values, shift = np.zeros(instance.tables[0].shape), Fraction(0)
    for row, price in priced:
        if price:
            excess, lowest = above_least(row.table)
            values += price * excess
            shift += Fraction(price) * lowest
    return np.minimum(values, _HUGE), shift


def above_least(table: Table) -> tuple[FloatArray, int]:
    """Return by how much entries (n, K) exceed their row's smallest, and the exact sum of those.

    Costs may be negative. Damages are not, and stay as they are.
    """
    if table.dtype.kind == "f":
        return table, 0
    least = table.min(axis=1)
    return (table - least[:, None]).astype(np.float64), exact_int_sum(least)


def _union(couplings: list[Coupling], size: int) -> tuple[IntArray, IntArray]:
    """Return the distinct edges of several couplings."""
    if len(couplings) == 1:
        return couplings[0].left, couplings[0].right
    every = [coupling.left * size + coupling.right for coupling in couplings]
    keys = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *every]))
    return keys // size, keys % size


def _least(
    singles: FloatArray,
    left: IntArray,
    right: IntArray,
    parts: list[tuple[Coupling, float]],
    local: list[LocalLimit],
    factor: float,
) -> Fraction:
    size, width = singles.shape
    held = np.zeros(size, dtype=bool)
    for limit in local:
        held[limit.groups] = True
    leaf_edges, leaf, centre = strip_leaves(size, left, right, held)
    between = np.ones(len(left), dtype=bool)
    between[leaf_edges] = False
    inner = np.flatnonzero(between)
    is_leaf = np.zeros(size, dtype=bool)
    is_leaf[leaf] = True
    touched = held
    touched[left] = touched[right] = True
    alone = np.flatnonzero(~touched)
    core = np.flatnonzero(touched & ~is_leaf)
    messages = np.empty((len(leaf), width))
    for start in range(0, len(leaf), _CHUNK):
        at = slice(start, start + _CHUNK)
        least = _messages(singles[leaf[at]], parts, left, right, leaf_edges[at], leaf[at], size)
        messages[at] = np.minimum(least, _HUGE)
    place = np.full(size, -1)
    place[core] = np.arange(len(core))
    rows = place[centre]
    total = exact_sum(singles[alone].min(axis=1) * factor)
    if len(inner) == 0 and not local:
        stars = singles[core]
        np.add.at(stars, rows, messages)
        # One rounding for each leaf that is added.
        return total + exact_sum(stars.min(axis=1) * (factor - int(np.bincount(rows).max(initial=0)) * 2 * _EPS))
    inner_tables = _tables(parts, left, right, inner, size, width)
    ends = place[left[inner]], place[right[inner]]
    whole = _Whole(messages, singles[core], rows, inner_tables, ends, local, factor)
    factors: list[Factor] = [((i,), row) for i, row in enumerate(whole.unary)]
    factors += [((a, b), table) for a, b, table in zip(ends[0].tolist(), ends[1].tolist(), whole.pairs, strict=True)]
    factors += [(tuple(place[limit.groups].tolist()), table) for limit, table in zip(local, whole.local, strict=True)]
    return total + int(least_sum(factors)[0]) * whole.unit


class _Whole:
    """Unary (n, K) and pair (e, K, K) functions of the core in whole numbers of ``unit``, rounded down.

    What is certainly above the minimum is lowered to a common ceiling, so that the unit can be small; what breaks a
    limit on few groups is raised to it.
    """

    def __init__(
        self,
        messages: FloatArray,
        core: FloatArray,
        rows: IntArray,
        pairs: FloatArray,
        ends: tuple[IntArray, IntArray],
        local: list[LocalLimit],
        factor: float,
    ) -> None:
        floats = core.copy()
        np.add.at(floats, rows, messages)
        best = floats.argmin(axis=1)
        # An assignment's value: the minimum is not above it. Doubling it covers the rounding of these sums.
        between = pairs[np.arange(len(pairs)), best[ends[0]], best[ends[1]]]
        value = float(floats.min(axis=1).sum() + between.sum())
        if local:  # that assignment may break them: no assignment is above this
            value = float(floats.max(axis=1).sum() + pairs.max(axis=(1, 2)).sum())
        ceiling = 2 * max(value, 1e-300)
        exponent = 60 - math.frexp(ceiling * 2 * (len(core) + len(pairs) + len(local) + 1))[1]
        self.unit = Fraction(2) ** -exponent
        high = floats > ceiling
        unary = _down(np.minimum(core, ceiling), factor, exponent)
        np.add.at(unary, rows, _down(np.minimum(messages, ceiling), factor, exponent))
        unary[high] = _down(np.array([ceiling]), factor, exponent)[0]
        self.unary = unary
        self.pairs = _down(np.minimum(pairs, ceiling), factor, exponent)
        self.local = [_down(np.where(limit.kept, 0.0, ceiling), factor, exponent) for limit in local]


def _down(values: FloatArray, factor: float, exponent: int) -> IntArray:
    return np.floor(np.ldexp(values * factor, exponent)).astype(np.int64)


def _messages(
    singles: FloatArray,
    parts: list[tuple[Coupling, float]],
    left: IntArray,
    right: IntArray,
    edges: IntArray,
    leaf: IntArray,
    size: int,
) -> FloatArray:
    """Return the least value (n, K) of each leaf with its edge, for each candidate of its centre."""
    present = list(_present(parts, left, right, edges, size))
    if all(pairs.coefficient is not None for _, pairs, _, _ in present):
        levels = present[0][1].levels
        slope = np.zeros(len(edges))
        for inside, pairs, own_edges, price in present:
            assert pairs.coefficient is not None
            slope[inside] += price * pairs.coefficient[own_edges].astype(np.float64)
        centre = np.where(leaf == left[edges], right[edges], left[edges])
        return _least_on_lines(singles, slope, levels[leaf], levels[centre])
    tables = _tables(parts, left, right, edges, size, singles.shape[1])
    turned = leaf != left[edges]
    tables[turned] = tables[turned].transpose(0, 2, 1)
    return np.asarray((singles[:, :, None] + tables).min(axis=1))


def _least_on_lines(fixed: FloatArray, slope: FloatArray, own: IntArray, other: IntArray) -> FloatArray:
    """Return the least over k (n, K) of ``fixed[i, k] + slope[i] own[i, k] other[i, c]``, for each c."""
    # Lower prices give a lower, valid, least; what overflows would meet a level of 0, and be no number.
    slope = np.minimum(slope, _HUGE / max(float(own.max(initial=1)) * float(other.max(initial=1)), 1.0))
    return native.least_on_lines(fixed, slope, own, other)


def _tables(
    parts: list[tuple[Coupling, float]], left: IntArray, right: IntArray, edges: IntArray, size: int, width: int
) -> FloatArray:
    """Return the priced tables (e, K, K), left by right, of some edges, not negative."""
    total = np.zeros((len(edges), width, width))
    for inside, pairs, own_edges, price in _present(parts, left, right, edges, size):
        tables = pairs.dense(own_edges)
        if pairs.tables is not None:
            tables = tables - np.minimum(tables.min(axis=(1, 2)), 0)[:, None, None]
        total[inside] += price * tables.astype(np.float64)
    return np.minimum(total, _HUGE)


def _present(
    parts: list[tuple[Coupling, float]], left: IntArray, right: IntArray, edges: IntArray, size: int
) -> Iterator[tuple[IntArray, Coupling, IntArray, float]]:
    """Yield for each coupling the places among ``edges`` that it has, itself, its own edges there, and its price."""
    if len(parts) == 1:  # all edges are those of the only coupling
        if len(edges):
            yield np.arange(len(edges)), parts[0][0], edges, parts[0][1]
        return
    wanted = left[edges] * size + right[edges]
    for pairs, price in parts:
        keys = pairs.left * size + pairs.right  # sorted, as pairs are
        own_edges = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        inside = np.flatnonzero(keys[own_edges] == wanted)
        if len(inside):
            yield inside, pairs, own_edges[inside], price
