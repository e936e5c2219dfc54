"""What some of the limits, pins and ties of a problem allow together: exact sums and an enumeration, no solver.

That they cannot be met follows from sums of row minima, from a multiplier between two limits, or from enumeration; that
they can, from a choice whose sums are taken anew from the problem. What is compiled of a part of the question is
compared with the problem before anything follows from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from impq_opt.costs.units import parse_quantity
from impq_opt.errors import ImpqError
from impq_opt.exactness.sums import ceil_float, exact_int_sum, exact_sum
from impq_opt.instance.compile import compile_instance
from impq_opt.instance.cost_row import CostRow, cost_row
from impq_opt.instance.instance import Instance
from impq_opt.judge.declared import Question, Weights, broken_rule, cost_of, damage_of, disagreement
from impq_opt.judge.extremes import between, least_costly, least_damaging
from impq_opt.judge.lines import lines_of
from impq_opt.judge.recount import Outcome, Recount, prove_bound
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["BOUND", "Case", "Decision", "Item", "MiscompiledError", "Verdict"]

# ("bound", ""), ("budget", cost), ("pins", label) or ("ties", label).
Item = tuple[str, str]
Verdict = Literal["proved", "claimed", "wrong"]

BOUND: Item = ("bound", "")
# Groups times candidates times limits whose tables are looked at together.
_LARGEST = 50_000_000
_LONG = re.compile(r"[eE][+-]?\d{4}|\d{400}")
# What is minimised where only limits matter: the sizes of all groups times their bits.
_SIZES: Weights = {"representational": 1}


class MiscompiledError(Exception):
    """What was compiled of a part of the question is not what the problem says; told in words."""


@dataclass(frozen=True)
class Decision:
    """Whether some items can be met together, None where that was not found out, and how that is known."""

    feasible: bool | None
    how: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, what was asked of it, and what can be found out about some limits, looking at so many ``states``.

    What asks for an instance raises MiscompiledError where that is not what the problem says.
    """

    problem: Problem
    asked: Question
    states: int
    _decided: dict[frozenset[Item], Decision] = field(default_factory=dict)
    _held: dict[frozenset[Item], Problem] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, allocation: Allocation, states: int) -> Case:
        """Return the question of an allocation."""
        return cls(problem, Question.of(allocation), states)

    @cached_property
    def items(self) -> list[Item]:
        """All limits, pins and ties that there are."""
        bound = [] if self.asked.bound is None else [BOUND]
        budgets = [("budget", name) for name in self.asked.budgets]
        pins = [("pins", self._label(group)) for group in self.problem.pins]
        ties = [("ties", self._label(tie[0])) for tie in self.problem.ties]
        return [*bound, *budgets, *dict.fromkeys(pins), *dict.fromkeys(ties)]

    def _label(self, group: int) -> str:
        names = self.problem.names
        return names.labels[int(names.label_of[group])]

    def most(self, item: Item) -> Fraction:
        """Return what a bound or budget allows."""
        if item == BOUND:
            assert self.asked.bound is not None
            return self.asked.bound
        return self.asked.budgets[item[1]]

    def row(self, item: Item, problem: Problem) -> CostRow:
        """Return the cost that a budget limits."""
        return cost_row(problem, self.asked.costs[item[1]])

    def name(self, item: Item) -> str:
        """Return an item in words."""
        return "the bound" if item == BOUND else f"the {item[0]} of {item[1]}".replace("budget of", "budget")

    def says(self, text: str, item: Item) -> bool:
        """Whether a text names an item, and its value where it has one."""
        kind, name = item
        if kind in ("pins", "ties"):
            return text == f"the {kind} of {name}"
        head, tail = ("the bound ", " on damage") if kind == "bound" else (f"the budget {name} of ", "")
        # A number with a long exponent would be written out in full.
        if not (text.startswith(head) and text.endswith(tail)) or _LONG.search(text[len(head) :]):
            return False
        value = text[len(head) : len(text) - len(tail)]
        unit = "" if kind == "bound" else self.row(item, self.problem).unit
        most = self.most(item)
        for number in (value, value.removesuffix(unit).strip()):
            try:
                stated = parse_quantity(number, unit)
            except ImpqError:
                continue
            return stated == most or float(stated) == ceil_float(most)
        return False

    def held(self, items: frozenset[Item]) -> Problem:
        """Return the problem with no pins and ties but those of ``items``."""
        fixings = frozenset(item for item in items if item[0] in ("pins", "ties"))
        if fixings not in self._held:
            pins = {g: column for g, column in self.problem.pins.items() if ("pins", self._label(g)) in fixings}
            ties = tuple(tie for tie in self.problem.ties if ("ties", self._label(tie[0])) in fixings)
            self._held[fixings] = replace(self.problem, pins=pins, ties=ties, free_unmeasured=True)
        return self._held[fixings]

    def largest(self, items: frozenset[Item]) -> list[str]:
        """Return in words which groups have most of the smallest damage under some pins and ties."""
        problem = self.held(items)
        part = self._bounded(problem)
        choice = part.lift(least_damaging(part))
        damage = problem.damage.chosen(problem.candidates, choice)
        total, largest = exact_sum(damage), []
        for group in np.argsort(-damage, kind="stable")[:3].tolist():
            share = math.floor(Fraction(float(damage[group])) * 100 / total) if total else 0
            label = problem.candidates.label(group, int(choice[group]))
            label += "" if problem.candidates.numbered else " bits"
            label += " (pinned)" if group in problem.pins else ""
            if share:
                largest.append(f"{problem.names[group]} at {label} with at least {share}% of it")
        return largest

    # -- feasibility

    def decide(self, items: frozenset[Item]) -> Decision:
        """Return whether ``items`` can be met together without the others."""
        if items not in self._decided:
            self._decided[items] = self._decide(items)
        return self._decided[items]

    def _decide(self, items: frozenset[Item]) -> Decision:
        limits = [item for item in self.items if item in items and item[0] in ("bound", "budget")]
        problem = self.held(items)
        witness = None
        for item in limits:
            lower, choice = self._row_sums(problem, item)
            if lower > self.most(item):
                return Decision(False, f"{self.name(item)} alone, by the sums of its smallest entries")
            witness = choice if self._meets(problem, limits, choice) else witness
        if not limits or witness is not None:
            return Decision(True, "a choice that keeps them")
        free = len(problem) - len(problem.pins) - sum(len(tie) - 1 for tie in problem.ties)
        if free * problem.candidates.width * len(limits) > _LARGEST:
            return Decision(None)
        full = self._question(problem, limits)
        return self._by_multiplier(full, limits) or self._by_enumeration(full, limits)

    def _by_multiplier(self, full: Instance, limits: Sequence[Item]) -> Decision | None:
        for first, second in combinations(lines_of(full, {}, None), 2):
            if first.pairs is None and second.pairs is None:
                for choice, beyond in between(first, second):
                    if beyond:
                        return Decision(False, "two limits, by a multiplier between them")
                    if self._meets(full.problem, limits, full.lift(choice)):
                        return Decision(True, "a choice that keeps them")
        return None

    def _by_enumeration(self, full: Instance, limits: Sequence[Item]) -> Decision:
        if full.size == 0:
            return Decision(
                self._meets(full.problem, limits, full.lift(np.empty(0, dtype=np.int64))), "everything is pinned"
            )
        worst = Fraction(full.base_cost + exact_int_sum(full.tables[0].max(axis=1)) + 1)
        recount = prove_bound(full, {}, worst, states=self.states)
        if recount.outcome is Outcome.PROVED:
            return Decision(False, f"enumerated again, {recount.states:,} partial assignments")
        if recount.better is not None and self._meets(full.problem, limits, full.lift(recount.better)):
            return Decision(True, "a choice that keeps them")
        return Decision(None)

    def _meets(self, problem: Problem, limits: Sequence[Item], choice: IntArray) -> bool:
        """Whether a choice (G,) keeps some limits, and a problem's pins and ties, by what was declared."""
        return not broken_rule(problem, choice) and all(self._value(item, choice) <= self.most(item) for item in limits)

    def _value(self, item: Item, choice: IntArray) -> Fraction:
        if item == BOUND:
            return damage_of(self.problem, choice)
        return cost_of(self.problem, self.asked.costs[item[1]], choice)

    # -- the smallest value

    def least(self, subject: Item, rest: frozenset[Item], low: Fraction, high: Fraction | None) -> tuple[Verdict, str]:
        """Say whether the least of ``subject`` under ``rest`` is from ``low`` to ``high``, or no less with None."""
        problem = self.held(rest)
        limits = [item for item in self.items if item in rest and item[0] in ("bound", "budget")]
        lower, choice = self._row_sums(problem, subject)
        reached = self._value(subject, choice) if self._meets(problem, limits, choice) else None
        below: bool | None = False
        if lower < low and not self._out_of_reach(subject, rest, low):
            below = True if reached is not None and reached < low else self._search(problem, subject, limits, low)
        if below:
            return "wrong", "and less is reached"
        within: bool | None = True
        if below is not None and high is not None and (reached is None or reached > high):
            within = lower <= high and self._search(problem, subject, limits, high, including=True)
        if within is False:
            return "wrong", "is not reached"
        if below is None or within is None:
            return "claimed", "is claimed by the solver, not proved again here"
        return "proved", "or more: nothing below it is reached" if high is None else "is reached, and nothing below it"

    def _out_of_reach(self, subject: Item, rest: frozenset[Item], low: Fraction) -> bool:
        """Whether nothing below ``low`` is reached because the limit, no smaller, is not."""
        return low <= self.most(subject) and self.decide(rest | {subject}).feasible is False

    def _search(
        self, problem: Problem, subject: Item, limits: Sequence[Item], value: Fraction, *, including: bool = False
    ) -> bool | None:
        """Return whether less than ``value``, or no more than it, is reached within ``limits``; None where unknown."""
        part = self._minimizing(problem, subject, limits)
        if part.size * int(part.widths.max(initial=1)) > _LARGEST:
            return None
        whole, quantum = part.objective.whole, part.objective.quantum
        target = value / quantum
        if including:
            target = Fraction(math.floor(target) + 1) if whole else target + Fraction(1, 1 << 1200)
        if part.size == 0:  # one choice
            recount = Recount(Outcome.REFUTED, 0, 1, np.empty(0, dtype=np.int64))
        else:
            recount = prove_bound(part, {}, target, states=self.states)
        if recount.better is None:
            return False if recount.outcome is Outcome.PROVED else None
        choice = part.lift(recount.better)
        below = self._value(subject, choice) < target * quantum
        return below and self._meets(problem, limits, choice)

    # -- instances

    def _compared(self, instance: Instance, question: Question) -> Instance:
        """Return an instance that says what its problem and ``question`` say."""
        differs = disagreement(instance, question)
        if differs:
            raise MiscompiledError(differs)
        return instance

    def _budgets(self, problem: Problem, limits: Sequence[Item]) -> list[tuple[str, CostRow, int]]:
        steps = ((item, step) for item in limits if item != BOUND for step in self.row(item, problem).steps())
        return [(name, row, math.floor(self.most(item) / row.quantum)) for item, (name, row) in steps]

    def _least_cost(self, problem: Problem, weights: Weights, limits: Sequence[Item]) -> Instance:
        """Return the question for the least cost of some ``weights`` within the limits."""
        bound, budgets = self.asked.bound if BOUND in limits else None, self._budgets(problem, limits)
        instance = compile_instance(problem, bound=bound, cost=cost_row(problem, weights), budgets=budgets)
        return self._compared(instance, replace(self.asked, minimizes="cost", weights=weights, bound=bound))

    def _least_damage(self, problem: Problem, limits: Sequence[Item]) -> Instance:
        """Return the question for the least damage within the limits, of which there is one on a cost."""
        first = min(limits, key=lambda item: bool(self.row(item, problem).peaks))
        row = self.row(first, problem)
        most = math.floor(self.most(first) / row.quantum)
        budgets = self._budgets(problem, [item for item in limits if item != first])
        instance = compile_instance(problem, cost=row, limit=most, budgets=budgets)
        weights = self.asked.costs[first[1]]
        return self._compared(instance, replace(self.asked, minimizes="damage", weights=weights, bound=None))

    def _question(self, problem: Problem, limits: Sequence[Item]) -> Instance:
        """Return an instance with the limits, and all groups' sizes times their bits to minimise."""
        return self._least_cost(problem, _SIZES, limits)

    def _minimizing(self, problem: Problem, subject: Item, limits: Sequence[Item]) -> Instance:
        if subject == BOUND:
            return self._least_damage(problem, limits)
        return self._least_cost(problem, self.asked.costs[subject[1]], limits)

    def _bounded(self, problem: Problem) -> Instance:
        """Return an instance with the bound alone."""
        return self._question(problem, [BOUND])

    def _steps(self, problem: Problem, item: Item) -> Iterator[Instance]:
        """Yield an instance with the cost that ``item`` limits alone, or of a peak with each step alone."""
        alone = replace(self.asked, minimizes="cost", weights=self.asked.costs[item[1]], bound=None)
        for name, step in self.row(item, problem).steps():
            yield self._compared(compile_instance(problem, cost=step), replace(alone, step=name))

    def _row_sums(self, problem: Problem, item: Item) -> tuple[Fraction, IntArray]:
        """Return a number that ``item``'s quantity is never below, and the choice (G,) of its smallest entries."""
        if item == BOUND:
            part = self._bounded(problem)
            choice = part.lift(least_damaging(part))
            return self._value(BOUND, choice), choice
        least: list[int] = []
        for part in self._steps(problem, item):
            total, columns = least_costly(part)
            if least:  # another step of a peak
                differs = (part.tables[0] != part.tables[0][:, :1]).any(axis=1)
                columns = np.where(differs, columns, choice)
            choice = columns
            least.append(total)
        return max(least) * part.quantum, part.lift(choice)
