"""Which few limits, with which pins and ties, stand against each other.

A conflict is found by leaving out, halves first (Junker 2004; Chinneck & Dravnieks 1991). Each question is whether some
of the limits, pins and ties can be met without the others, and has three answers: they cannot, here is a choice that
meets them, or neither could be told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from impq_opt.exactness.sums import exact_sum
from impq_opt.instance.compile import compile_instance
from impq_opt.instance.cost_row import CostRow, cost_row
from impq_opt.instance.instance import Instance, RankOne
from impq_opt.problem.problem import Problem

__all__ = ["BOUND", "Item", "Limit", "Parts", "smallest_conflict"]

# What stands in a conflict: ("bound", ""), ("budget", cost), ("pins", label) or ("ties", label).
Item = tuple[str, str]
# Whether some items conflict; None where that could not be told.
Conflicts = Callable[[frozenset[Item]], bool | None]

BOUND: Item = ("bound", "")
# Up to this many parts every smaller set is tried, smallest first.
_FEW = 5


@dataclass(frozen=True)
class Limit:
    """A limit on a cost, ``most`` of its unit; ``weights`` are those of the terms that it combines."""

    weights: Mapping[str, Fraction | int | float]
    most: Fraction


@dataclass(frozen=True, eq=False)
class Parts:
    """A problem with its bound and its limits by name, of which any can be left out, as can pins and ties by label."""

    problem: Problem
    bound: Fraction | None
    limits: Mapping[str, Limit]

    @classmethod
    def of(cls, instance: Instance) -> Parts:
        """Return the parts of a question."""
        limits = {}
        for name, most in instance.limits_on_costs.items():
            own = instance.limit is not None and name == "+".join(instance.row.weights)
            limits[name] = Limit(instance.row.weights if own else {name: 1}, most)
        return cls(instance.problem, instance.bound, limits)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """All there are: the bound, the limits, the pins and the ties."""
        bound = () if self.bound is None else (BOUND,)
        budgets = (("budget", name) for name in self.limits)
        pins = (("pins", label) for label in dict.fromkeys(self._pin_labels.values()))
        ties = (("ties", label) for label in dict.fromkeys(self._tie_labels))
        return (*bound, *budgets, *pins, *ties)

    @cached_property
    def _pin_labels(self) -> dict[int, str]:
        names = self.problem.names
        return {g: names.labels[int(names.label_of[g])] for g in sorted(self.problem.pins)}

    @cached_property
    def _tie_labels(self) -> list[str]:
        names = self.problem.names
        return [names.labels[int(names.label_of[tie[0]])] for tie in self.problem.ties]

    def most(self, item: Item) -> Fraction:
        """Return what a bound or a budget allows."""
        return self.bound or Fraction(0) if item == BOUND else self.limits[item[1]].most

    def row(self, item: Item, problem: Problem | None = None) -> CostRow:
        """Return the cost that a budget limits, or where damage is limited the one that is minimised."""
        weights = self.problem.objective if item == BOUND else self.limits[item[1]].weights
        return cost_row(problem or self.problem, weights)

    def is_peak(self, item: Item) -> bool:
        """Whether a budget limits the largest of several sums."""
        return item != BOUND and bool(self.row(item).peaks)

    def held(self, items: frozenset[Item]) -> Problem:
        """Return the problem with no pins and ties but those of ``items``."""
        pinned, tied = self._pin_labels, zip(self.problem.ties, self._tie_labels, strict=True)
        pins = {g: column for g, column in self.problem.pins.items() if ("pins", pinned[g]) in items}
        ties = tuple(tie for tie, label in tied if ("ties", label) in items)
        if len(pins) == len(self.problem.pins) and len(ties) == len(self.problem.ties):
            return self.problem
        return replace(self.problem, pins=pins, ties=ties, free_unmeasured=True)

    def question(self, subject: Item, rest: frozenset[Item], *, linear: bool = False) -> Instance:
        """Return the question for the least of ``subject`` under ``rest``; ``linear`` leaves its limits out.

        The damage is asked for as such, so ``rest`` must then have a budget, or no limit be asked about.
        """
        problem = self.held(rest)
        row = self.row(subject, problem)
        if linear:
            return compile_instance(problem, cost=row)
        names = [name for kind, name in self.items if kind == "budget" and ("budget", name) in rest]
        if subject != BOUND:
            bound, budgets = self.bound if BOUND in rest else None, self._budgets(problem, names)
            instance = compile_instance(problem, cost=row, bound=bound, budgets=budgets)
            return instance if bound is not None else instance.with_bound(_any_damage(instance))
        first = min(names, key=lambda name: self.is_peak(("budget", name)))
        budgets = self._budgets(problem, [name for name in names if name != first])
        row = self.row(("budget", first), problem)
        limit = int(self.limits[first].most // row.quantum)
        return compile_instance(problem, cost=row, limit=limit, budgets=budgets)

    def _budgets(self, problem: Problem, names: Iterable[str]) -> list[tuple[str, CostRow, int]]:
        rows = [(name, step, row) for name in names for step, row in self._steps(problem, name)]
        return [(step, row, int(self.limits[name].most // row.quantum)) for name, step, row in rows]

    def _steps(self, problem: Problem, name: str) -> list[tuple[str, CostRow]]:
        return cost_row(problem, self.limits[name].weights).steps()


def _any_damage(instance: Instance) -> Fraction:
    """Return a bound that every choice meets: strategies that minimise a cost need one."""
    largest = instance.base_damage + 1
    for block in instance.blocks:
        damage = block.damage
        most = damage.left * damage.right.max() if isinstance(damage, RankOne) else damage.max(axis=1)
        largest += exact_sum(most) * 2  # tied sums are rounded down
    return largest


def smallest_conflict(
    items: Sequence[Item], known: frozenset[Item], conflicts: Conflicts
) -> tuple[tuple[Item, ...], bool]:
    """Return a conflict among ``items``, of which ``known`` conflict, and whether each part was shown to be needed.

    Among few items it is also smallest in number, as far as could be told.
    """
    smallest = known
    pins, ties = ([item for item in items if item[0] == kind and item in known] for kind in ("pins", "ties"))
    limits = [item for item in items if item[0] in ("bound", "budget") and item in known]
    if pins and ties and conflicts(frozenset(limits)):
        smallest = frozenset(limits)
    for some in (pins, ties, limits[::-1]):
        smallest = _without(smallest, some, conflicts)
    if len(items) <= _FEW:
        smallest = _smaller(items, smallest, conflicts)
    needed = [conflicts(smallest - {item}) is False for item in smallest]
    return tuple(item for item in items if item in smallest), all(needed)


def _without(items: frozenset[Item], some: Sequence[Item], conflicts: Conflicts) -> frozenset[Item]:
    """Leave out of a conflict what can be left out of ``some``: all at once, or else one half, then the other."""
    rest = items.difference(some)
    if not items.intersection(some) or conflicts(rest):
        return rest
    if len(some) == 1:
        return items
    middle = len(some) // 2
    return _without(_without(items, some[:middle], conflicts), some[middle:], conflicts)


def _smaller(items: Sequence[Item], known: frozenset[Item], conflicts: Conflicts) -> frozenset[Item]:
    for size in range(1, len(known)):
        for some in itertools.combinations(items, size):
            if conflicts(frozenset(some)):
                return frozenset(some)
    return known
