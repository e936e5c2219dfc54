"""Damage laws: what a group at a precision does to the network, in one stated unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impq_opt.groups.arrays import float_array
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.held import Held, held
from impq_opt.types import FloatArray, IntArray

__all__ = ["DamageTable", "PowerLaw", "zero_damages"]


@dataclass(frozen=True, eq=False)
class PowerLaw(Held):
    """Damage ``E_g 4^-B``: the step of a quantizer of B bits, squared, times the sensitivity (IMPQ slides).

    Parameters
    ----------
    sensitivity : ndarray of float64 (G,)
        E, normalised: the square of the quantizer's range is folded in.
    stderr : ndarray of float64 (G,), optional
        Standard error of E.
    """

    sensitivity: FloatArray
    stderr: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensitivity", float_array(self.sensitivity, "sensitivity"))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float_array(self.stderr, "stderr"))

    def __len__(self) -> int:
        return len(self.sensitivity)

    def scale(self, bits: Sequence[float]) -> FloatArray:
        """Return ``4^-B`` for each precision."""
        return np.exp2(-2.0 * np.asarray(bits, dtype=np.float64))

    def at(self, groups: IntArray | slice, bits: Sequence[float]) -> FloatArray:
        """Return the damage (n, K) of ``groups`` at ``bits``; the float64 product is the definition."""
        return self.sensitivity[groups, None] * self.scale(bits)

    def chosen(self, candidates: Candidates, choice: IntArray) -> FloatArray:
        """Return the damage (G,) of a choice (G,)."""
        return self.sensitivity * np.exp2(-2.0 * candidates.bits(choice))


@dataclass(frozen=True, eq=False)
class DamageTable(Held):
    """Damage of every group at every candidate, of any shape.

    Parameters
    ----------
    values : ndarray of float64 (G, K)
        Infinite where a group may not take a candidate. Columns past a group's last candidate are ignored.
    stderr : ndarray of float64 (G, K), optional
        Standard errors of the values.
    """

    values: FloatArray
    stderr: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", float_array(self.values, "damage", 2))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float_array(self.stderr, "damage.stderr", 2))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sensitivity(self) -> FloatArray:
        """The largest finite damage (G,) of each group: what ranks groups as E of a :class:`PowerLaw` does."""
        return held(np.where(np.isfinite(self.values), self.values, 0.0).max(axis=1))

    def at(self, groups: IntArray | slice, bits: Sequence[float]) -> FloatArray:
        """Return the damage (n, K) of ``groups`` at ``bits``, a view where it can."""
        rows = self.values[groups]
        return rows if rows.shape[1] == len(bits) else rows[:, : len(bits)]

    def allowed(self, candidates: Candidates) -> npt.NDArray[np.bool_] | None:
        """Return which candidates (G, K) a group may take, K being the largest number of them; None where all."""
        if self.values.max() < np.inf:
            return None
        inside = np.arange(candidates.width) < candidates.counts(len(self))[:, None]
        allowed = inside & (self.values[:, : candidates.width] < np.inf)
        return None if bool((allowed == inside).all()) else held(allowed)

    def chosen(self, candidates: Candidates, choice: IntArray) -> FloatArray:
        """Return the damage (G,) of a choice (G,)."""
        return self.values[np.arange(len(choice)), choice]


def zero_damages(damage: PowerLaw | DamageTable, candidates: Candidates) -> npt.NDArray[np.bool_]:
    """Return which groups (G,) have a damage of exactly 0 at every candidate that they may take."""
    if isinstance(damage, PowerLaw):
        return damage.sensitivity == 0
    past = np.arange(damage.values.shape[1]) >= candidates.counts(len(damage))[:, None]
    return (past | (damage.values == 0) | (damage.values == np.inf)).all(axis=1)
