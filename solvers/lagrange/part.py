"""One row in the order of an oracle: groups that stand alone, the core, the leaves, and their pairs."""

from __future__ import annotations

from functools import reduce

import numpy as np

from impq_opt.instance.row import Row
from impq_opt.solvers.lagrange.stars import Stars
from impq_opt.types import FloatArray, IntArray

__all__ = ["Part"]


class Part:
    """A row as floats: alone (n, K), core (C, K), ``leaves`` (K, L), and its pairs.

    ``coefficient`` (L,) or ``tables`` (K centre, K leaf, L) are those of the leaves, ``inner`` (e, K, K) those of the
    core. Also what the row comes to at most: ``largest``, ``span`` from its least to that, ``size`` either way, and
    ``negative``, what its negative entries can take off a sum: rounding is measured against it.
    """

    def __init__(self, row: Row, stars: Stars, leaves: FloatArray) -> None:
        table = row.table.astype(np.float64)
        self.row, self.table = row, table
        # Whole columns at once: many times as quick as a minimum along rows of eight.
        least, most = reduce(np.minimum, table.T), reduce(np.maximum, table.T)
        with np.errstate(over="ignore"):  # what is beyond float64 is large
            self.largest, self.span = float(most.sum()), float((most - least).sum())
            self.size = float(np.maximum(np.abs(most), np.abs(least)).sum())  # above what the row comes to, either way
        self.alone, self.core = table[stars.alone], table[stars.core]
        leaves[:] = table[stars.leaf].T
        self.leaves = leaves
        self.coefficient: FloatArray | None = None
        self.tables: FloatArray | None = None
        self.inner = np.zeros((len(stars.inner), table.shape[1], table.shape[1]))
        self.negative = -float(np.minimum(least, 0).sum())
        if row.pairs is not None:
            self._add_pairs(stars)

    def _add_pairs(self, stars: Stars) -> None:
        pairs = self.row.pairs
        assert pairs is not None
        width = self.table.shape[1]
        if pairs.tables is not None:
            self.negative -= float(np.minimum(pairs.tables.min(axis=(1, 2)), 0).sum())
        place = stars.pairs_of(pairs)
        mine = place[stars.edges]
        there = np.flatnonzero(mine >= 0)
        if pairs.coefficient is not None:
            levels = np.abs(pairs.levels).max(axis=1).astype(np.float64)
            self.size += float((pairs.coefficient * levels[pairs.left] * levels[pairs.right]).sum())
            self.coefficient = np.zeros(len(stars.edges))
            self.coefficient[there] = pairs.coefficient[mine[there]]
        else:
            self.size += float(np.abs(pairs.dense().astype(np.float64)).max(axis=(1, 2)).sum())
            dense = np.zeros((len(stars.edges), width, width))
            dense[there] = pairs.dense(mine[there])
            dense[stars.turned] = dense[stars.turned].transpose(0, 2, 1)  # leaf by centre
            self.tables = np.ascontiguousarray(dense.transpose(2, 1, 0))
        there = np.flatnonzero(place[stars.inner] >= 0)
        self.inner[there] = pairs.dense(place[stars.inner[there]])

    def total(self, choice: IntArray) -> float:
        """Return the row at a choice, pinned groups taken off."""
        value = float(self.table[np.arange(len(choice)), choice].sum())
        return value if self.row.pairs is None else value + float(self.row.pairs.at(choice).sum())
