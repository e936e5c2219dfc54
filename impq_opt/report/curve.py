"""The frontier, thinned out for drawing: cost, damage and mean bits by layer at up to some hundred breakpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from impq_opt.costs import readable_unit
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
    own : int
        The point that is the allocation of the report.
    on_hull : bool
        Whether that is a breakpoint; otherwise it was put between two of them.
    total : int
        Breakpoints there are; P of them are kept, or one fewer where ``own`` is no breakpoint.
    exact : sequence of Allocation
        Proved optima between them.
    """

    index: LayerIndex
    cost: FloatArray
    damage: FloatArray
    bits: FloatArray
    own: int
    on_hull: bool
    total: int
    cost_name: str
    unit: str
    exact: Sequence[Allocation] = ()

    def figure(self, allocation: Allocation, strategies: Sequence[Strategy]) -> Figure:
        """Return cost against damage, with the allocation and the strategies as points."""
        factor, unit = self.scale
        drawn = len(self.cost) - (not self.on_hull)
        kept = "every" if self.total == drawn else f"{drawn:,} of {self.total:,}"
        points = np.delete(np.stack([self.damage, self.cost / factor]), [] if self.on_hull else [self.own], axis=1)
        x, y = points[:, points[0] > 0].tolist()  # a logarithmic axis has no 0
        series = [Series(f"convex hull ({kept} breakpoint{'s' * (kept != 'every')})", x, y, "line")]
        for name, style, marks in (
            ("exact points", "ring", [("", point) for point in self.exact]),
            ("strategies", "dots", [(s.name, s.allocation) for s in strategies if s.allocation is not allocation]),
            ("this allocation", "ring", [("this allocation", allocation)]),
        ):
            rows = [(label, point) for label, point in marks if point.choice is not None and point.damage > 0]
            if rows:
                x, y = [point.damage for _, point in rows], [nearest_float(point.cost) / factor for _, point in rows]
                series.append(Series(name, x, y, style, [label for label, _ in rows], marked=True))
        return Figure(
            "frontier",
            "Cost against damage",
            "The hull's breakpoints are optimal at their own damage. What lies between two of them none shows: "
            "the exact points, drawn as rings, were solved for.",
            f"damage ({allocation.problem.damage_unit or allocation.problem.metric})",
            f"{self.cost_name} [{unit}]" if unit else self.cost_name,
            series,
            x_log=True,
        )

    @property
    def scale(self) -> tuple[float, str]:
        """How many units of cost go into the unit that is shown, and its name: of the allocation's own cost."""
        return readable_unit(float(self.cost[self.own]), self.unit)

    def as_dict(self) -> dict[str, Any]:
        """Return what the page's script needs to show an allocation for a point."""
        factor, unit = self.scale
        return {
            "cost": (self.cost / factor).tolist(),
            "damage": self.damage.tolist(),
            "bits": np.round(self.bits, 3).tolist(),
            "layers": [{"name": name, "kind": kind} for name, kind in self.index.keys],
            "most": float(max(map(max, self.index.problem.candidates.sets))),
            "unit": unit,
            "own": self.own,
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
    """Return the frontier of ``allocation``'s problem, thinned out, with the allocation's own and exact points."""
    index = LayerIndex(allocation.problem)
    places = thin(front.damage)
    cost, damage = front.cost[places].astype(np.float64), front.damage[places]
    bits = np.stack([index.mean_bits(front.choice(int(place))) for place in places])
    mine, spent = index.mean_bits(np.asarray(allocation.choice)), nearest_float(allocation.cost)
    own = int(np.searchsorted(cost, spent))
    on_hull = own < len(cost) and cost[own] == spent and bool((bits[own] == mine).all())
    if not on_hull:
        cost, damage = np.insert(cost, own, spent), np.insert(damage, own, allocation.damage)
        bits = np.insert(bits, own, mine, axis=0)
    name, unit = " + ".join(allocation.cost_weights), front.instance.row.unit
    return Curve(index, cost, damage, bits, own, on_hull, len(front), name, unit, exact)


def knee(cost: FloatArray, damage: FloatArray) -> int:
    """Return the place of the point farthest below the chord between the ends, in log damage (Satopaa et al. 2011)."""
    inside = np.flatnonzero((damage > 0) & np.isfinite(damage))
    if len(inside) < 3:
        return int(inside[0]) if len(inside) else 0
    x, y = np.log(damage[inside]), cost[inside].astype(np.float64)
    x, y = (x - x.min()) / max(float(np.ptp(x)), 1e-300), (y - y.min()) / max(float(np.ptp(y)), 1e-300)
    return int(inside[int(np.argmin(x + y))])
