"""The frontier, thinned out for drawing: cost, damage and mean bits by layer at up to some hundred breakpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from impq_opt.exactness.sums import nearest_float
from impq_opt.insight.frontier import Frontier
from impq_opt.problem.allocation import Allocation
from impq_opt.report.figures import Figure, Series
from impq_opt.report.layers import LayerIndex
from impq_opt.types import FloatArray, IntArray

__all__ = ["Curve", "Strategy", "curve", "knee", "thin"]


@dataclass(frozen=True)
class Strategy:
    """One strategy's answer to the same question."""

    name: str
    allocation: Allocation


@dataclass(frozen=True, eq=False)
class Curve:
    """Breakpoints of the convex hull from cheap to accurate.

    Parameters
    ----------
    cost, damage : ndarray (P,)
    bits : ndarray (P, L)
        Mean precision of each layer at each point.
    total : int
        Breakpoints there are; P of them are kept.
    exact : sequence of Allocation
        Proved optima between them.
    """

    index: LayerIndex
    cost: FloatArray
    damage: FloatArray
    bits: FloatArray
    total: int
    cost_name: str
    unit: str
    exact: Sequence[Allocation] = ()

    def figure(self, allocation: Allocation, strategies: Sequence[Strategy]) -> Figure:
        """Return cost against damage, with the allocation and the strategies as points."""
        kept = "every" if self.total == len(self.cost) else f"{len(self.cost)} of {self.total}"
        series = [Series(f"convex hull ({kept} breakpoint{'s' * (kept != 'every')})", *self._xy(), "line")]
        for name, style, points in (
            ("exact points", "ring", [("exact", point) for point in self.exact]),
            ("strategies", "dots", [(s.name, s.allocation) for s in strategies]),
            ("this allocation", "ring", [("this allocation", allocation)]),
        ):
            rows = [(label, point) for label, point in points if point.choice is not None and point.damage > 0]
            if rows:
                x, y = [point.damage for _, point in rows], [nearest_float(point.cost) for _, point in rows]
                series.append(Series(name, x, y, style, [label for label, _ in rows]))
        return Figure(
            "frontier",
            "Cost against damage",
            "The hull's breakpoints are optimal at their own damage. What lies between two of them none shows: "
            "the exact points, drawn as rings, were solved for.",
            f"damage ({allocation.problem.damage_unit or allocation.problem.metric})",
            f"{self.cost_name} [{self.unit}]" if self.unit else self.cost_name,
            series,
            x_log=True,
        )

    def _xy(self) -> tuple[list[float], list[float]]:
        inside = self.damage > 0  # a logarithmic axis has no 0
        return self.damage[inside].tolist(), self.cost[inside].tolist()

    def as_dict(self) -> dict[str, Any]:
        """Return what the page's script needs to show an allocation for a point."""
        return {
            "cost": self.cost.tolist(),
            "damage": self.damage.tolist(),
            "bits": np.round(self.bits, 3).tolist(),
            "layers": [{"name": name, "kind": kind} for name, kind in self.index.keys],
            "most": float(max(map(max, self.index.problem.candidates.sets))),
            "unit": self.unit,
            "costName": self.cost_name,
            "sizes": self.index.sizes.tolist(),
        }


def thin(damage: FloatArray, most: int = 160) -> IntArray:
    """Return the places of at most ``most`` points, evenly spread in the logarithm of damage, ends included."""
    if len(damage) <= most:
        return np.arange(len(damage))
    level = np.log(np.maximum(damage, damage[damage > 0].min() if (damage > 0).any() else 1.0))
    wanted = np.linspace(level[0], level[-1], most - 1)
    places = np.searchsorted(-level, -wanted)
    return np.unique(np.concatenate([[0], np.minimum(places, len(damage) - 1), [len(damage) - 1]]))


def curve(allocation: Allocation, front: Frontier, exact: Sequence[Allocation] = ()) -> Curve:
    """Return the frontier ``found`` of ``allocation``'s problem, thinned out, with exact points."""
    index = LayerIndex(allocation.problem)
    places = thin(front.damage)
    bits = np.stack([index.mean_bits(front.choice(int(place))) for place in places])
    name, unit = " + ".join(allocation.cost_weights), front.instance.row.unit
    return Curve(index, front.cost[places], front.damage[places], bits, len(front), name, unit, exact)


def knee(cost: FloatArray, damage: FloatArray) -> int:
    """Return the place of the point farthest below the chord between the ends, in log damage (Satopaa et al. 2011)."""
    inside = np.flatnonzero(damage > 0)
    if len(inside) < 3:
        return int(inside[0]) if len(inside) else 0
    x, y = np.log(damage[inside]), cost[inside].astype(np.float64)
    x, y = (x - x.min()) / max(float(np.ptp(x)), 1e-300), (y - y.min()) / max(float(np.ptp(y)), 1e-300)
    return int(inside[int(np.argmin(x + y))])
