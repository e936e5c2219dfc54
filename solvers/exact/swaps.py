"""Better answers close by: changes of up to four groups at once that fit all limits and lower the objective.

Costs lie on a coarse lattice (a kernel's bit costs what its layer's other kernels' bits cost), so what is left of the
limits is filled only by changes that nearly cancel: one layer up, two others down. Changes with a small reduced cost
are paired, of pairs that cost and use the same the two with the least reduced cost are kept, and pairs are matched with
pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from impq_opt.types import FloatArray, IntArray

__all__ = ["swap"]


# Changes of each kind (equal in the objective and in the whole sums) that are tried, and in all.
_OF_A_KIND, _CHANGES = 4, 700
# Sums that all pairs of changes together may hold: with very many limits there are fewer changes.
_SUMS = 1 << 22
# Pairs that are matched with pairs, and matches that are looked at.
_PAIRS, _MATCHES = 12_000, 2_000_000


def swap(
    tables: Sequence[FloatArray],
    reduced: FloatArray,
    choice: IntArray,
    slack: Callable[[IntArray], FloatArray],
    offer: Callable[[IntArray], bool],
    gap: Callable[[], float],
    check: Callable[[], None],
    rounds: int = 12,
) -> None:
    """Improve a feasible ``choice`` (size,) step by step, the largest gain first, until nothing near fits.

    Parameters
    ----------
    tables : sequence of ndarray (size, K)
        The objective, then each limited sum.
    reduced : ndarray (size, K)
        Reduced costs; inf for candidates that do not exist. Changes of small reduced cost are tried.
    slack : callable
        What a choice leaves of each limit (R,).
    offer : callable
        Takes a choice and returns whether it is feasible, decided exactly.
    gap : callable
        How far the best answer is from the bound; no change that leads to a better answer has a larger reduced cost.
    check : callable
        Called so often that it may raise where time is over.
    """
    for _ in range(rounds):
        changes = _changes(tables, reduced, choice, gap())
        check()
        pairs = _pairs(changes)
        check()
        match = _best_match(pairs, changes, slack(choice), gap(), check)
        if not len(match):
            return
        changed = choice.copy()
        changed[changes.group[match]] = changes.column[match]
        if not offer(changed):
            return
        choice = changed


@dataclass(frozen=True)
class _Changes:
    """Single changes: group, column (n,), what they add to each sum (1 + R, n), and to the reduced cost (n,).

    The first one changes nothing. ``whole`` are the places of the sums that are whole numbers: costs, not damages.
    """

    group: IntArray
    column: IntArray
    sums: FloatArray
    reduced: FloatArray
    whole: list[int]


def _changes(tables: Sequence[FloatArray], reduced: FloatArray, choice: IntArray, gap: float) -> _Changes:
    lines = np.arange(len(choice))
    price = reduced - reduced[lines, choice][:, None]
    price[lines, choice] = np.inf
    near = np.flatnonzero(np.abs(price.reshape(-1)) <= gap)
    near = near[np.argsort(price.reshape(-1)[near], kind="stable")]
    group, column = near // reduced.shape[1], near % reduced.shape[1]
    sums = np.stack([table[group, column] - table[group, choice[group]] for table in tables])
    whole = [i for i, values in enumerate(sums) if not (values % 1).any()]
    rank = _rank_in_kind(sums[whole])
    kept = np.flatnonzero(rank < _OF_A_KIND)
    # Where kinds are many, first one of each, then a second.
    most = min(_CHANGES, math.isqrt(2 * _SUMS // len(tables)))
    kept = np.sort(kept[np.argsort(rank[kept], kind="stable")[:most]])
    nothing = np.zeros((len(tables), 1))
    return _Changes(
        np.append(-1, group[kept]),
        np.append(0, column[kept]),
        np.hstack([nothing, sums[:, kept]]),
        np.append(0.0, price.reshape(-1)[near[kept]]),
        whole,
    )


def _rank_in_kind(kinds: FloatArray) -> IntArray:
    """Return for each column its number among the equal columns before it."""
    count = kinds.shape[1]
    if kinds.shape[0] == 0:
        return np.zeros(count, dtype=np.int64)
    # One number for what a column holds: equal columns have equal ones, and sorting one row is enough.
    odd = np.random.default_rng(0).integers(1 << 62, size=kinds.shape[0]) * 2 + 1
    kind = odd @ (kinds + 0.0).view(np.int64)  # -0 is 0
    order = np.argsort(kind, kind="stable")
    fresh = np.ones(count, dtype=bool)
    fresh[1:] = np.diff(kind[order]) != 0
    starts = np.maximum.accumulate(np.where(fresh, np.arange(count), 0))
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count) - starts
    return rank


def _pairs(changes: _Changes) -> IntArray:
    """Return pairs (p, 2) of changes of different groups, by objective; the cheapest of those that add the same."""
    first, second = np.triu_indices(len(changes.group), 0)
    # The change that changes nothing pairs with all, itself too; others with other groups.
    apart = (changes.group[first] != changes.group[second]) | (first == 0)
    first, second = first[apart], second[apart]
    price = changes.reduced[first] + changes.reduced[second]
    order = np.argsort(price, kind="stable")
    first, second = first[order], second[order]
    total = changes.sums[:, first] + changes.sums[:, second]
    rank = _rank_in_kind(total[changes.whole])
    kept = np.flatnonzero(rank < 2)[:_PAIRS]
    kept = kept[np.argsort(total[0, kept], kind="stable")]
    return np.stack([first[kept], second[kept]], axis=1)


def _best_match(
    pairs: IntArray, changes: _Changes, left: FloatArray, gap: float, check: Callable[[], None]
) -> IntArray:
    """Return the changes of the two pairs that lower the objective most and fit; none where no two do."""
    total = changes.sums[:, pairs[:, 0]] + changes.sums[:, pairs[:, 1]]
    goal = total[0]
    start = np.searchsorted(goal, -gap - goal, side="left")
    stop = np.searchsorted(goal, -goal, side="left")  # strictly lower in all
    counts = np.maximum(stop - start, 0)
    if counts.sum() > _MATCHES:
        counts = np.minimum(counts, max(1, _MATCHES // len(counts)))
    first = np.repeat(np.arange(len(goal)), counts)
    second = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
    for values, room in zip(total[1:], left.tolist(), strict=True):
        check()
        fits = values[first] + values[second] <= room
        first, second = first[fits], second[fits]
    for number in np.argsort(goal[first] + goal[second], kind="stable")[:2000].tolist():
        match = np.concatenate([pairs[first[number]], pairs[second[number]]])
        match = match[match > 0]
        if len(set(changes.group[match].tolist())) == len(match):
            return np.asarray(match, dtype=np.int64)
    return np.empty(0, dtype=np.int64)
