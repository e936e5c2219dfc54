"""Better answers by changing one group, or two at once, where damages interact."""

from __future__ import annotations

import numpy as np

from impq_opt.instance.contract import Control
from impq_opt.solvers.exact.curved import Curved
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["descend", "rounded"]

# Candidates up to which two changes at once are tried.
_PAIRS = 800
_STEPS = 300


def descend(form: Curved, choice: IntArray, control: Control) -> IntArray:
    """Return a choice (size,) that no single change betters, or two at once where the instance is small.

    What breaks limits is first made to keep them, each step taking off most of the excess for its price.
    """
    search = _Descent(form, choice)
    for _ in range(_STEPS):
        if control.expired() or not search.step():
            break
    return search.choice


class _Descent:
    def __init__(self, form: Curved, choice: IntArray) -> None:
        self.form, self.choice = form, choice.copy()
        self.groups = np.arange(form.size)
        count = int(form.allowed.sum())
        self.places = np.nonzero(form.allowed) if count <= _PAIRS else None
        if self.places is not None:
            flat = form.factors[self.places]
            self.gram = flat @ flat.T
            self.same = self.places[0][:, None] == self.places[0]

    def step(self) -> bool:
        """Take the best change; return whether there was one."""
        single = self._single()
        above = self.form.values(self.choice[None])[0]
        if (above[1:] > 0).any():
            return self._repair(single, above)
        best = self._best(single, above)
        if best is None and self.places is not None:
            return self._double(single, above)
        if best is None:
            return False
        self.choice[best[0]] = best[1]
        return True

    def _single(self) -> FloatArray:
        """Return what each change of one group adds to each row (m, size, K)."""
        form = self.form
        own = form.factors[self.groups, self.choice]
        total = own.sum(axis=0)
        change = form.rows - form.rows[:, self.groups, self.choice][:, :, None]
        apart = form.factors - own[:, None]
        change[form.square] += 2 * (apart @ total) + np.einsum("gkr,gkr->gk", apart, apart)
        return change

    def _repair(self, change: FloatArray, above: FloatArray) -> bool:
        now = np.maximum(above[1:], 0).sum()
        after = np.maximum(above[1:, None, None] + change[1:], 0).sum(axis=0)
        gain = np.where(self.form.allowed, now - after, 0.0)
        if gain.max() <= 1e-15 * now:
            return False
        score = gain / np.maximum(change[0], self._small(change[0]))
        group, column = np.unravel_index(int(np.where(gain > 1e-15 * now, score, -1.0).argmax()), gain.shape)
        self.choice[group] = column
        return True

    @staticmethod
    def _small(change: FloatArray) -> float:
        return 1e-9 * float(np.abs(change).max(initial=0.0)) + 1e-300

    def _best(self, change: FloatArray, above: FloatArray) -> tuple[int, int] | None:
        fits = self.form.allowed & (above[1:, None, None] + change[1:] <= 0).all(axis=0)
        gain = np.where(fits, -change[0], 0.0)
        if gain.max() <= 1e-12 * abs(above[0]) + 1e-300:
            return None
        # The most for what it takes of the limits.
        taken = np.maximum(change[1:], 0).max(axis=0, initial=0.0) + 1e-6
        group, column = np.unravel_index(int((gain / taken).argmax()), gain.shape)
        return int(group), int(column)

    def _double(self, single: FloatArray, above: FloatArray) -> bool:
        assert self.places is not None
        form, (group, column) = self.form, self.places
        one = single[:, group, column]
        number = np.zeros(form.rows.shape[1:], dtype=np.int64)
        number[group, column] = np.arange(len(group))
        now = number[self.groups, self.choice][group]  # the candidate that each group of a place has
        cross = self.gram[now]
        product = self.gram - cross.T - cross + self.gram[np.ix_(now, now)]
        fits = ~self.same
        for row in range(len(one)):
            both = one[row][:, None] + one[row]
            if row == form.square:
                both += 2 * product
            if row:
                fits &= above[row] + both <= 0
            else:
                gain = -both
        gain = np.where(fits, gain, 0.0)
        best = int(gain.argmax())
        if gain.flat[best] <= 1e-12 * abs(above[0]) + 1e-300:
            return False
        for place in divmod(best, len(group)):
            self.choice[group[place]] = column[place]
        return True


def rounded(shares: FloatArray, allowed: BoolArray) -> IntArray:
    """Return the candidates (size,) with the largest shares."""
    return np.asarray(np.where(allowed, shares, -1.0).argmax(axis=1), dtype=np.int64)
