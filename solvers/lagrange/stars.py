"""How the costs of pairs hang together: leaves on their only neighbours, and the core that is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impq_opt.instance.coupling import Coupling
from impq_opt.instance.elimination import strip_leaves
from impq_opt.instance.local import LocalLimit
from impq_opt.types import BoolArray, IntArray

__all__ = ["Stars"]


class Stars:
    """The graph of all pairs of an instance, taken apart.

    keys : ndarray of int64 (E,)
        The distinct edges of all couplings, as left * size + right, in order.
    alone : ndarray of int64
        Groups in no pair, nor limited with few others.
    leaf : ndarray of int64 (L,)
        Groups with one neighbour, of which ``owner`` (L,) is the place in the core, and ``edges`` (L,) are the pairs,
        ``turned`` where the leaf is the right end.
    core : ndarray of int64 (C,)
        All others; ``place`` (size,) says where in it a group is.
    inner : ndarray of int64
        Edges inside the core; ``ends`` are the places of their left and right groups.
    """

    def __init__(self, size: int, couplings: Sequence[Coupling], local: Sequence[LocalLimit]) -> None:
        self.size = size
        self.keys = _edges(couplings, size)
        left, right = self.keys // size, self.keys % size
        held = np.zeros(size, dtype=bool)
        for limit in local:
            held[limit.groups] = True
        edges, leaf, centre = strip_leaves(size, left, right, held)
        order = np.argsort(centre, kind="stable")
        self.edges, self.leaf, centre = edges[order], leaf[order], centre[order]
        touched = held.copy()
        touched[left] = touched[right] = True
        self.alone = np.flatnonzero(~touched)
        touched[self.leaf] = False
        self.core = np.flatnonzero(touched)
        self.place = np.full(size, -1)
        self.place[self.core] = np.arange(len(self.core))
        self.owner = self.place[centre]
        between = np.ones(len(self.keys), dtype=bool)
        between[self.edges] = False
        self.inner = np.flatnonzero(between)
        self.ends = self.place[left[self.inner]], self.place[right[self.inner]]
        self.turned: BoolArray = self.leaf == right[self.edges]

    def pairs_of(self, pairs: Coupling) -> IntArray:
        """Return for each of all edges (E,) the place of its pair in a coupling, -1 where it has none."""
        place = np.full(len(self.keys), -1)
        place[np.searchsorted(self.keys, pairs.left * self.size + pairs.right)] = np.arange(len(pairs))
        return place


def _edges(couplings: Sequence[Coupling], size: int) -> IntArray:
    if not couplings:
        return np.empty(0, dtype=np.int64)
    keys = [pairs.left * size + pairs.right for pairs in couplings]
    # Those of one coupling are distinct and in order already.
    return keys[0] if len(keys) == 1 else np.unique(np.concatenate(keys))
