"""Damages that interact: what pairs of groups do to the network together, beyond what each of them does alone.

The damage of an allocation k is ``sum_g d[g, k_g] + sum_{i<j} P_ij[k_i, k_j]``. The table d is what each group does
alone, the diagonal; P are the cross terms, declared in one of two forms. Numbers are float64 that are read as exact
binary numbers, as damages are. Cross terms may be negative, and so may totals with :class:`Pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.errors import ProblemError
from impq_opt.exactness.sums import dyadic, exact_sum
from impq_opt.groups.arrays import float_array, int_array
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.held import Held
from impq_opt.types import BoolArray, FloatArray, IntArray

__all__ = ["Factors", "Interactions", "Pairs"]


@dataclass(frozen=True, eq=False)
class Factors(Held):
    """Cross terms of a sum of squares: ``P_ij[a, b] = 2 <F_i,a, F_j,b>``.

    With d the squared norms of F, or more, the damage is ``sum (d - |F|^2) + |sum_g F_g,k_g|^2``: convex, and never
    negative. F is what rounding group g alone does to the logits, in a basis of r directions.

    Parameters
    ----------
    values : ndarray of float64 (G, K, r)
        Zeros where a group does not interact. Columns past a group's last candidate are ignored.
    stderr : ndarray of float64 (G, K, r), optional
        Standard errors of the values.
    """

    values: FloatArray
    stderr: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", float_array(self.values, "interactions.factors", 3))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float_array(self.stderr, "interactions.stderr", 3))

    def check(self, candidates: Candidates, count: int) -> None:
        """Raise ProblemError unless there are finite numbers for each of ``count`` groups and their candidates."""
        for values, name in ((self.values, "factors"), (self.stderr, "stderr")):
            if values is None:
                continue
            where = f"interactions.{name}"
            if len(values) != count or values.shape[1] < candidates.width or values.shape[2] != self.values.shape[2]:
                raise ProblemError(
                    "must have a row per group, a column per candidate, and r numbers in each",
                    where=where,
                    value=values.shape,
                    hint=f"{count} groups, up to {candidates.width} candidates",
                )
            inside = np.arange(values.shape[1]) < candidates.counts(count)[:, None]
            _check_finite(np.where(inside[:, :, None], values, 0.0), where, least=0.0 if name == "stderr" else None)

    def total(self, choice: IntArray) -> Fraction:
        """Return the exact sum of the cross terms of a choice (G,)."""
        chosen = self.values[np.arange(len(choice)), choice]
        chosen = chosen[chosen.any(axis=1)]
        sums = [exact_sum(column) for column in chosen.T]
        return sum((value * value for value in sums), Fraction(0)) - _exact_squares(chosen)

    def totals(self, choices: IntArray) -> FloatArray:
        """Return :meth:`total` of choices (N, G) in float64; no rounding of it exceeds 2^-40 of :attr:`reach`."""
        chosen = self.values[np.arange(choices.shape[1]), choices]
        sums = chosen.sum(axis=1)
        return np.asarray(np.einsum("nr,nr->n", sums, sums) - np.einsum("ngr,ngr->n", chosen, chosen))

    def beside(self, choice: IntArray) -> FloatArray:
        """Return each group's cross terms (G, K) with all others as in ``choice``, at each of its candidates."""
        chosen = self.values[np.arange(len(choice)), choice]
        return np.asarray(2 * np.einsum("gkr,gr->gk", self.values, chosen.sum(axis=0) - chosen))

    @property
    def reach(self) -> float:
        """A number that the cross terms, with no sign, never add up to more than; NaN past a group's width is 0."""
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(np.nan_to_num(self.values), axis=2).max(axis=1)
            return float(2 * lengths.sum() ** 2)

    def error(self, choice: IntArray) -> float | None:
        """Return the standard error of :meth:`total`, errors of entries taken as independent; None where unknown."""
        if self.stderr is None:
            return None
        rows = np.arange(len(choice))
        chosen, errors = self.values[rows, choice], self.stderr[rows, choice]
        slopes = 2 * (chosen.sum(axis=0) - chosen)
        return float(np.linalg.norm(slopes * np.where(np.isfinite(errors), errors, 0.0)))

    def with_columns(self, columns: IntArray) -> Factors:
        """Return the factors at ``columns`` (G, k) of each group alone."""
        place = np.arange(len(columns))[:, None], columns
        return Factors(self.values[place], None if self.stderr is None else self.stderr[place])

    def __str__(self) -> str:
        return f"factors in {self.values.shape[2]:,} {'direction' if self.values.shape[2] == 1 else 'directions'}"

    def of_groups(self, keep: BoolArray) -> Factors:
        """Return the factors of the groups ``keep`` (G,) alone."""
        return Factors(self.values[keep], None if self.stderr is None else self.stderr[keep])


@dataclass(frozen=True, eq=False)
class Pairs(Held):
    """Cross terms that were measured pair by pair, such as CLADO's: a table for each pair, of either sign.

    Parameters
    ----------
    groups : ndarray of int64 (P, 2)
        Two groups each; kept in order, the smaller first. Pairs that are absent do not interact.
    values : ndarray of float64 (P, K, K)
        Candidates of the first group by those of the second; columns past a group's last candidate are ignored.
    stderr : ndarray of float64 (P, K, K), optional
        Standard errors of the values.
    """

    groups: IntArray
    values: FloatArray
    stderr: FloatArray | None = None

    def __post_init__(self) -> None:
        groups = int_array(self.groups, "interactions.groups", 2)
        values = float_array(self.values, "interactions.pairs", 3)
        stderr = None if self.stderr is None else float_array(self.stderr, "interactions.stderr", 3)
        if groups.shape != (len(values), 2) or (stderr is not None and stderr.shape != values.shape):
            raise ProblemError(
                "must name two groups for each table", where="interactions.groups", value=(groups.shape, values.shape)
            )
        if values.shape[1] != values.shape[2]:
            raise ProblemError("must have as many rows as columns", where="interactions.pairs", value=values.shape)
        # One order, one form: equality and digest do not depend on how pairs were listed.
        swap = groups[:, 0] > groups[:, 1]
        low = np.where(swap[:, None], groups[:, ::-1], groups)
        order = np.lexsort((low[:, 1], low[:, 0]))
        if swap.any() or (order[1:] < order[:-1]).any():
            values = np.where(swap[:, None, None], values.transpose(0, 2, 1), values)[order]
            if stderr is not None:
                stderr = np.where(swap[:, None, None], stderr.transpose(0, 2, 1), stderr)[order]
            groups = low[order]
        for name, array in (("groups", groups), ("values", values), ("stderr", stderr)):
            object.__setattr__(self, name, array)
        super().__post_init__()

    def check(self, candidates: Candidates, count: int) -> None:
        """Raise ProblemError unless every pair is of two of ``count`` groups, listed once, with finite numbers."""
        where = "interactions.groups"
        outside = (self.groups < 0) | (self.groups >= count)
        if outside.any():
            raise ProblemError("no such group", where=where, value=int(self.groups[outside][0]))
        if (self.groups[:, 0] == self.groups[:, 1]).any():
            hint = "what a group does alone is its damage"
            row = self.groups[self.groups[:, 0] == self.groups[:, 1]][0]
            raise ProblemError("must be two groups", where=where, value=row.tolist(), hint=hint)
        twice = (self.groups[1:] == self.groups[:-1]).all(axis=1)
        if twice.any():
            raise ProblemError("is listed twice", where=where, value=self.groups[1:][twice][0].tolist())
        if self.values.shape[1] < candidates.width:
            raise ProblemError(
                "must have a row and a column per candidate",
                where="interactions.pairs",
                value=self.values.shape,
                hint=f"up to {candidates.width} candidates",
            )
        inside = np.arange(self.values.shape[1]) < candidates.counts(count)[:, None]
        both = inside[self.groups[:, 0], :, None] & inside[self.groups[:, 1], None, :]
        _check_finite(np.where(both, self.values, 0.0), "interactions.pairs")
        if self.stderr is not None:
            _check_finite(np.where(both, self.stderr, 0.0), "interactions.stderr", least=0.0)

    def total(self, choice: IntArray) -> Fraction:
        """Return the exact sum of the cross terms of a choice (G,)."""
        return exact_sum(self._chosen(self.values, choice))

    def totals(self, choices: IntArray) -> FloatArray:
        """Return :meth:`total` of choices (N, G) in float64; no rounding of it exceeds 2^-40 of :attr:`reach`."""
        total = np.zeros(len(choices))
        for (left, right), table in zip(self.groups.tolist(), self.values, strict=True):
            total += table[choices[:, left], choices[:, right]]
        return total

    def beside(self, choice: IntArray) -> FloatArray:
        """Return each group's cross terms (G, K) with all others as in ``choice``, at each of its candidates."""
        terms = np.zeros((len(choice), self.values.shape[1]))
        (left, right), pair = self.groups.T, np.arange(len(self.values))
        np.add.at(terms, left, self.values[pair, :, choice[right]])
        np.add.at(terms, right, self.values[pair, choice[left], :])
        return terms

    @property
    def reach(self) -> float:
        """A number that the cross terms, with no sign, never add up to more than; NaN past a group's width is 0."""
        with np.errstate(over="ignore"):
            return float(np.abs(np.nan_to_num(self.values)).max(axis=(1, 2)).sum())

    def error(self, choice: IntArray) -> float | None:
        """Return the standard error of :meth:`total`, errors of entries taken as independent; None where unknown."""
        if self.stderr is None:
            return None
        errors = self._chosen(self.stderr, choice)
        return float(np.linalg.norm(np.where(np.isfinite(errors), errors, 0.0)))

    def _chosen(self, tables: FloatArray, choice: IntArray) -> FloatArray:
        left, right = choice[self.groups].T
        return tables[np.arange(len(tables)), left, right]

    def with_columns(self, columns: IntArray) -> Pairs:
        """Return the cross terms at ``columns`` (G, k) of each group alone."""
        left, right = columns[self.groups].transpose(1, 0, 2)
        place = np.arange(len(self.values))[:, None, None], left[:, :, None], right[:, None, :]
        return Pairs(self.groups, self.values[place], None if self.stderr is None else self.stderr[place])

    def __str__(self) -> str:
        return f"{len(self.values):,} {'pair' if len(self.values) == 1 else 'pairs'}"

    def of_groups(self, keep: BoolArray) -> Pairs | None:
        """Return the cross terms of the groups ``keep`` (G,) alone; None where no pair is left."""
        left = keep[self.groups].all(axis=1)
        if not left.any():
            return None
        place = np.cumsum(keep) - 1
        return Pairs(place[self.groups[left]], self.values[left], None if self.stderr is None else self.stderr[left])


Interactions = Factors | Pairs


def _check_finite(values: FloatArray, where: str, least: float | None = None) -> None:
    wrong = ~np.isfinite(values) if least is None else ~(values >= least)
    if least is not None:
        wrong &= ~np.isnan(values)  # an error that nobody knows
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        what = "must be finite" if least is None else "must not be negative"
        raise ProblemError(what, where=where + "".join(f"[{k}]" for k in place), value=float(values[tuple(place)]))


def _exact_squares(values: FloatArray) -> Fraction:
    """Return the exact sum of the squares of finite float64 values."""
    mantissas, exponents = np.frexp(values.reshape(-1))
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    total, first = 0, int(exponents.min(initial=0))
    for exponent in np.unique(exponents).tolist():
        own = whole[exponents == exponent]
        total += sum(one * one for one in own.tolist()) << (2 * (exponent - first))
    return dyadic(total, 2 * (first - 53))
