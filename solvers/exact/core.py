"""The core: an integer multiple-choice knapsack, whose equal groups are taken together before it is searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impq_opt.instance.contract import Control
from impq_opt.solvers.exact.tuning import Tuning
from impq_opt.solvers.native.program import Core, CoreResult, run
from impq_opt.types import IntArray

__all__ = ["Bundles", "search"]


def search(core: Core, most: int, control: Control, tuning: Tuning, *, refine: bool = False) -> CoreResult:
    """Solve a core; where more than ``most`` states are needed, or time is over, the result says so in ``stop``.

    With ``refine``, ``doubtful`` holds all assignments that rounding might make the best, so that exact sums can settle
    which one is; the core then says how its numbers were ordered before they were rounded.
    """
    most = min(most, tuning.most_states)
    if len(core.gain) <= tuning.bundled and not refine:
        return run(core, most, control, tuning.doubtful)
    bundles = Bundles.of(core)
    result = run(bundles.core, most, control, tuning.doubtful, refine=refine)
    result.columns = None if result.columns is None else bundles.spread(result.columns)
    result.doubtful = [(gain, bundles.spread(columns)) for gain, columns in result.doubtful]
    return result


@dataclass(frozen=True, eq=False)
class Bundles:
    """A core whose equal groups are taken together.

    Any number of equal groups with two choices can be changed by changing bundles of 1, 2, 4, ... of them.

    core: its groups are bundles. order (n,): groups of the original core, bundle after bundle. times (bundles,): groups
    of each bundle.
    """

    core: Core
    order: IntArray
    times: IntArray

    @classmethod
    def of(cls, core: Core) -> Bundles:
        """Find the equal groups of ``core``."""
        parts = [core.gain, core.need] if core.alike is None else [core.gain, core.need, core.alike[:, None]]
        table = np.concatenate(parts, axis=1)
        # Equal rows have equal hashes; rows of one hash that differ are left alone.
        odd = np.random.default_rng(0).integers(1 << 62, size=table.shape[1]) * 2 + 1
        _, first, kind, count = np.unique(table @ odd, return_index=True, return_inverse=True, return_counts=True)
        alike = np.ones(len(first), dtype=bool)
        alike[kind[(table != table[first[kind]]).any(axis=1)]] = False
        order = np.argsort(kind, kind="stable")
        starts, times = [], []
        for number in np.flatnonzero(count > 1).tolist():
            row = first[number]
            if not alike[number] or len(core.choices(int(row))) > 2:
                continue
            start = int(count[:number].sum())
            for size in _binary(int(count[number])):
                starts.append(start)
                times.append(size)
                start += size
        covered = np.zeros(len(table), dtype=bool)
        for start, size in zip(starts, times, strict=True):
            covered[start : start + size] = True
        singles = np.flatnonzero(~covered)
        all_starts = np.concatenate([np.array(starts, dtype=np.int64), singles])
        all_times = np.concatenate([np.array(times, dtype=np.int64), np.ones(len(singles), dtype=np.int64)])
        rows = order[all_starts]
        bundled = Core(
            core.gain[rows] * all_times[:, None],
            core.need[rows] * all_times[:, None],
            core.room,
            core.target,
            core.doubt,
            core.blur,
            None if core.rank is None else core.rank[rows],
            None if core.alike is None else core.alike[rows],
        )
        pieces = np.repeat(all_starts - np.concatenate([[0], np.cumsum(all_times)[:-1]]), all_times)
        return cls(bundled, order[pieces + np.arange(len(table))], all_times)

    def spread(self, columns: IntArray) -> IntArray:
        """Return the column of each group for one column a bundle."""
        spread = np.empty(len(self.order), dtype=np.int64)
        spread[self.order] = np.repeat(columns, self.times)
        return spread


def _binary(count: int) -> list[int]:
    """Return sizes that add up to ``count`` and of which some add up to every smaller number."""
    sizes, size = [], 1
    while count > 0:
        sizes.append(min(size, count))
        count -= sizes[-1]
        size *= 2
    return sizes
