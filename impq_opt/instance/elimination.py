"""The least sum of functions of one and two discrete variables, by eliminating variables (Bertele & Brioschi 1972).

Exact where the tables that elimination makes stay small, which they do for trees; elsewhere a lower bound, by taking
the minimum over parts of a bucket one by one (mini-buckets, Dechter & Rish 2003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.types import IntArray

__all__ = ["Factor", "least_by_value", "least_sum", "strip_leaves"]

# The variables of a function and its table, one axis a variable, in their order.
Factor = tuple[tuple[int, ...], npt.NDArray[Any]]

# Entries of the largest table: 2 MiB entries take 16 MiB.
_LARGEST = 1 << 21


def least_sum(
    factors: Sequence[Factor], check: Callable[[], None] | None = None
) -> tuple[int | float, dict[int, int], bool]:
    """Return the least value of the sum of ``factors``, an assignment, and whether that assignment attains it.

    The value is the minimum, or where a table would grow too large a lower bound on it. ``check`` is called before each
    variable is eliminated, and may raise where time is over.
    """
    pool = list(factors)
    constant: int | float = 0
    trail: list[tuple[int, list[Factor]]] = []
    exact = True
    while True:
        constant += sum(np.asarray(table).item() for scope, table in pool if not scope)
        pool = [factor for factor in pool if factor[0]]
        if not pool:
            break
        if check is not None:
            check()
        variable = _next(pool)
        bucket = [factor for factor in pool if variable in factor[0]]
        pool = [factor for factor in pool if variable not in factor[0]]
        parts = _parts(bucket)
        exact = exact and len(parts) == 1
        trail.append((variable, parts))
        for scope, table in parts:
            axis = scope.index(variable)
            pool.append((scope[:axis] + scope[axis + 1 :], table.min(axis=axis)))
    return constant, _assign(trail), exact


def least_by_value(
    factors: Sequence[Factor], check: Callable[[], None] | None = None
) -> dict[int, npt.NDArray[Any]] | None:
    """Return what the sum of ``factors`` is at least with each variable at each of its values.

    What elimination takes from a bucket to the next it takes back again afterwards: each bucket hears of all others.
    The least sum must be finite. None where a table would grow too large.
    """
    pool = [(factor, -1) for factor in factors]
    buckets: list[tuple[int, list[tuple[Factor, int]]]] = []
    roots: dict[int, float] = {}
    constant = 0.0
    while True:
        # A bucket that leaves nothing to choose is the last of its part of the graph.
        done = [(float(table), origin) for (scope, table), origin in pool if not scope]
        constant += sum(value for value, _ in done)
        roots |= {origin: value for value, origin in done}
        pool = [entry for entry in pool if entry[0][0]]
        if not pool:
            break
        if check is not None:
            check()
        variable = _next([factor for factor, _ in pool])
        bucket = [entry for entry in pool if variable in entry[0][0]]
        pool = [entry for entry in pool if variable not in entry[0][0]]
        parts = _parts([factor for factor, _ in bucket])
        if len(parts) > 1:
            return None
        scope, table = parts[0]
        axis = scope.index(variable)
        pool.append(((scope[:axis] + scope[axis + 1 :], table.min(axis=axis)), len(buckets)))
        buckets.append((variable, bucket))
    heard: dict[int, Factor] = {number: ((), np.asarray(constant - value)) for number, value in roots.items()}
    found: dict[int, npt.NDArray[Any]] = {}
    for number in range(len(buckets) - 1, -1, -1):
        variable, bucket = buckets[number]
        everything = [factor for factor, _ in bucket] + [heard[number]]
        found[variable] = _onto(everything, (variable,))
        for place, (factor, origin) in enumerate(bucket):
            if origin >= 0:
                heard[origin] = factor[0], _onto(everything[:place] + everything[place + 1 :], factor[0])
    return found


def _onto(factors: list[Factor], scope: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the least sum of ``factors``, which fit into one table, for each assignment of ``scope``."""
    (whole, table), *rest = sorted(factors, key=lambda f: -f[1].size)
    for factor in rest:
        joined = _join((whole, table), factor)
        assert joined is not None  # as in the bucket that they come from
        whole, table = joined
    others = tuple(axis for axis, variable in enumerate(whole) if variable not in scope)
    kept = [variable for variable in whole if variable in scope]
    return table.min(axis=others).transpose([kept.index(variable) for variable in scope])


def _next(pool: list[Factor]) -> int:
    """Return the variable with the fewest neighbours, the lowest of equals."""
    neighbours: dict[int, set[int]] = {}
    for scope, _ in pool:
        for variable in scope:
            neighbours.setdefault(variable, set()).update(scope)
    return min(neighbours, key=lambda variable: (len(neighbours[variable]), variable))


def _parts(bucket: list[Factor]) -> list[Factor]:
    """Add up factors while the table stays small; start another part where it would not."""
    parts: list[Factor] = []
    for factor in sorted(bucket, key=lambda f: -f[1].size):
        for place, part in enumerate(parts):
            joined = _join(part, factor)
            if joined is not None:
                parts[place] = joined
                break
        else:
            parts.append(factor)
    return parts


def _join(first: Factor, second: Factor) -> Factor | None:
    scope = first[0] + tuple(v for v in second[0] if v not in first[0])
    shape = dict(zip(first[0], first[1].shape, strict=True)) | dict(zip(second[0], second[1].shape, strict=True))
    size = 1
    for variable in scope:
        size *= shape[variable]
    if size > _LARGEST and len(scope) > max(len(first[0]), len(second[0])):
        return None
    return scope, _spread(first, scope) + _spread(second, scope)


def _spread(factor: Factor, scope: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the table with one axis for each variable of ``scope``."""
    mine, table = factor
    order = sorted(range(len(mine)), key=lambda axis: scope.index(mine[axis]))
    present = [v in mine for v in scope]
    shape = iter(table.transpose(order).shape)
    return table.transpose(order).reshape([next(shape) if there else 1 for there in present])


def _assign(trail: list[tuple[int, list[Factor]]]) -> dict[int, int]:
    assignment: dict[int, int] = {}
    for variable, parts in reversed(trail):
        total: npt.NDArray[Any] | None = None
        for scope, table in parts:
            # An inner minimum of a split bucket can leave variables that are not assigned yet: take column 0 of those.
            index = tuple(slice(None) if v == variable else assignment.get(v, 0) for v in scope)
            total = table[index] if total is None else total + table[index]
        assert total is not None
        assignment[variable] = int(total.argmin())
    return assignment


def strip_leaves(
    size: int, left: IntArray, right: IntArray, held: npt.NDArray[np.bool_] | None = None
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the edges (L,) that end in a leaf, their leaves (L,) and centres (L,), in the graph of all edges.

    A leaf has one neighbour and is not ``held`` (size,); of two groups that have only each other, the left one is the
    leaf where it may be.
    """
    degree = np.bincount(left, minlength=size) + np.bincount(right, minlength=size)
    may_be = degree == 1 if held is None else (degree == 1) & ~held
    left_leaf = may_be[left]
    right_leaf = may_be[right] & ~left_leaf
    edges = np.flatnonzero(left_leaf | right_leaf)
    leaf = np.where(left_leaf, left, right)[edges]
    centre = np.where(left_leaf, right, left)[edges]
    return edges, leaf, centre
