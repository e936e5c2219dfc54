"""Why nothing is feasible: a conflict of few limits, pins and ties, and what one limit comes down to under the others.

What a limit comes down to is found from row minima where they tell, and else by a solver. Nothing is stated that was
found with another limit in the way than those that the diagnosis names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from impq_opt.costs import format_quantity, parse_quantity
from impq_opt.errors import ImpqError
from impq_opt.exactness.limits import LARGEST_TOTAL
from impq_opt.exactness.sums import ceil_float, exact_int_sum, exact_sum, floor_float
from impq_opt.instance.instance import Instance, RankOne
from impq_opt.instance.ties import member_damages
from impq_opt.problem.allocation import Allocation, Diagnosis, Status, rounded
from impq_opt.proof.conflict import BOUND, Item, Parts, smallest_conflict
from impq_opt.proof.pricing import least_priced
from impq_opt.types import IntArray

__all__ = ["diagnose", "quantity_text", "smallest_damage"]


# Solves a question within so many seconds.
Ask = Callable[[Instance, float], Allocation]

# Seconds for each question that row minima do not answer, and for all that is looked into.
_QUESTION_SECONDS, _SECONDS = 2.0, 10.0


def diagnose(
    instance: Instance, ask: Ask | None = None, *, deadline: float = math.inf, infeasible: bool = False
) -> Diagnosis | None:
    """Return why nothing is feasible; None where neither row minima nor who calls this know that nothing is.

    Parameters
    ----------
    ask : callable, optional
        Solves a question within so many seconds; asked only where nothing is feasible, to tell what stands in the way.
        Without it limits may be named that could be left out, and the diagnosis says so.
    deadline : float
        On the clock of :func:`time.perf_counter`.
    infeasible : bool
        Whether it is known already that nothing is feasible.
    """
    if instance.interacting:
        return _of_interacting(instance, ask, deadline) if infeasible else None
    parts = Parts.of(instance)
    known = _Known(parts, ask, min(deadline, time.perf_counter() + _SECONDS))
    items = frozenset(known.out_of_reach() or (parts.items if infeasible else ()))
    if not items:
        return None
    known.certain(items)
    conflict, minimal = smallest_conflict(parts.items, items, known.conflicts)
    return _told(parts, known, conflict, minimal)


def _of_interacting(instance: Instance, ask: Ask | None, deadline: float) -> Diagnosis | None:
    """Return what the damage comes down to under all else, where damages interact; what conflicts is not looked for."""
    problem = instance.problem
    if instance.bound is None:  # costs alone are limited
        alone = replace(instance, problem=replace(problem, interactions=None))
        return diagnose(alone, ask, deadline=deadline, infeasible=True)
    seconds = min(_SECONDS, deadline - time.perf_counter())
    lower: Fraction | float = instance.bound
    attained = False
    if ask is not None and seconds > 0:
        free = replace(instance, bound=None, limit=LARGEST_TOTAL)
        with suppress(ImpqError):
            answer = ask(free, seconds)
            lower, attained = max(lower, answer.exact_lower_bound), answer.status is Status.OPTIMAL
    return Diagnosis(
        limit="damage",
        smallest=_float_beside(lower, False),
        allowed=_float_beside(instance.bound, True),
        attained=attained and lower > instance.bound,
    )


@dataclass(frozen=True)
class _Least:
    """What is known of the least of a limited quantity: a lower bound, and a value that is reached."""

    lower: Fraction | float
    reached: Fraction | None = None
    attained: bool = False


class _Known:
    """What is known of which items conflict, asked for once.

    What conflicts does so with more beside it, and what does not conflict does not with less.
    """

    def __init__(self, parts: Parts, ask: Ask | None, deadline: float) -> None:
        self.parts, self.ask, self.deadline = parts, ask, deadline
        self.least: dict[tuple[Item, frozenset[Item]], _Least] = {}
        self.at_odds: list[frozenset[Item]] = []
        self.at_peace: list[frozenset[Item]] = []

    def certain(self, items: frozenset[Item]) -> None:
        """Take note that ``items`` conflict."""
        self.at_odds.append(items)

    def out_of_reach(self) -> tuple[Item, ...]:
        """Return a limit with all pins and ties that row minima show to conflict; empty where there is none."""
        held = [item for item in self.parts.items if item[0] in ("pins", "ties")]
        limits = [item for item in self.parts.items if item not in held]
        for rest in (held, list(self.parts.items)):
            for limit in limits:
                # Where costs couple groups, limits on few groups count too.
                if rest is not held and (limit == BOUND or not self.parts.row(limit).coupled):
                    continue
                others = frozenset(rest) - {limit}
                if self.of_rows(limit, others).lower > self.parts.most(limit):
                    return tuple(item for item in self.parts.items if item in others or item == limit)
        return ()

    def conflicts(self, items: frozenset[Item]) -> bool | None:
        """Return whether ``items`` conflict; None where that cannot be told in time."""
        if any(items >= some for some in self.at_odds):
            return True
        limits = [item for item in self.parts.items if item in items and item[0] in ("bound", "budget")]
        if not limits or any(items <= some for some in self.at_peace):
            return False
        if time.perf_counter() >= self.deadline:
            return None
        verdict = None
        for limit in limits:
            verdict = self._tells(limit, self.of_rows(limit, items - {limit})) if verdict is None else verdict
        if verdict is None:
            subject = _subject(self.parts, limits)
            verdict = self._tells(subject, self.of_solver(subject, items - {subject}))
        if verdict is not None:
            (self.at_odds if verdict else self.at_peace).append(items)
        return verdict

    def _tells(self, limit: Item, least: _Least) -> bool | None:
        most = self.parts.most(limit)
        if least.lower > most:
            return True
        return False if least.reached is not None and least.reached <= most else None

    def of_rows(self, subject: Item, rest: frozenset[Item]) -> _Least:
        """Return what row minima tell of the least of ``subject`` under ``rest``."""
        key = (subject, rest)
        if key not in self.least:
            self.least[key] = _least_of_rows(self.parts, subject, rest)
        return self.least[key]

    def of_solver(self, subject: Item, rest: frozenset[Item]) -> _Least:
        """Return what a solver tells of it on top."""
        least = self.of_rows(subject, rest)
        seconds = min(_QUESTION_SECONDS, self.deadline - time.perf_counter())
        if least.attained or self.ask is None or seconds <= 0:
            return least
        try:
            answer = self.ask(self.parts.question(subject, rest), seconds)
        except ImpqError:
            return least
        except KeyboardInterrupt:  # say what is known
            self.deadline = -math.inf
            return least
        lower = math.inf if answer.status is Status.INFEASIBLE else max(least.lower, answer.exact_lower_bound)
        reached = least.reached if answer.exact_objective is None else answer.exact_objective
        least = _Least(lower, reached, answer.status is Status.OPTIMAL)
        self.least[subject, rest] = least
        return least


def _subject(parts: Parts, limits: list[Item]) -> Item:
    """Return the limit of a conflict to speak of: the bound, or else a sum rather than a peak."""
    return min(limits, key=lambda item: (item != BOUND, parts.is_peak(item)))


def _least_of_rows(parts: Parts, subject: Item, rest: frozenset[Item]) -> _Least:
    instance = parts.question(subject, rest, linear=True)
    choice = _least_damaging(instance) if subject == BOUND else _least_costly(instance)
    full = instance.lift(choice)
    reached = _value(parts, subject, full)
    lower = reached if subject == BOUND else _lower(parts, instance, subject, rest)
    limits = (item for item in parts.items if item in rest and item[0] in ("bound", "budget"))
    if any(_value(parts, limit, full) > parts.most(limit) for limit in limits):
        return _Least(lower)
    return _Least(lower, reached, lower == reached)


def _value(parts: Parts, item: Item, choice: IntArray) -> Fraction:
    """Return what a choice (G,) has of what ``item`` limits, exactly."""
    problem = parts.problem
    if item == BOUND:
        return exact_sum(problem.damage.chosen(problem.candidates, choice))
    row = parts.row(item)
    return row.total(problem.candidates, choice) * row.quantum


def _lower(parts: Parts, instance: Instance, subject: Item, rest: frozenset[Item]) -> Fraction:
    """Return a number that the cost is never below, whatever the limits of ``rest`` that are on many groups."""
    if instance.pairs is not None:
        instance = parts.question(subject, rest - {BOUND})
        least = instance.base_cost + math.ceil(least_priced(instance, [(instance.objective, 1.0)]))
    elif instance.peaks:
        least = int(max(step.ends[0] for step in instance.peaks))
    else:
        least = instance.base_cost + sum(exact_int_sum(_row_min(b.cost, b.widths)) for b in instance.blocks)
    return least * instance.quantum


def smallest_damage(instance: Instance) -> Fraction:
    """Return the sum of every free group's smallest damage, exact but for the rounding of tied sums, and pins."""
    return instance.base_damage + sum(
        (exact_sum(_row_min(block.damage, block.widths)) for block in instance.blocks), Fraction(0)
    )


def _row_min(table: RankOne[Any] | npt.NDArray[Any], widths: IntArray | None) -> npt.NDArray[Any]:
    """Return the smallest entry (n,) of each row of a rank-one or full table."""
    if isinstance(table, RankOne):
        # left and right are not negative, so a row's smallest entry is at the smallest right.
        return table.left * table.right.min()
    return _inside(table, widths).min(axis=1)


def _inside(table: npt.NDArray[Any], widths: IntArray | None) -> npt.NDArray[Any]:
    """Return the table with all columns past a row's width larger than any other."""
    if widths is None:
        return table
    large = np.iinfo(np.int64).max if table.dtype.kind == "i" else np.inf
    return np.where(np.arange(table.shape[1]) < widths[:, None], table, large)


def _least_costly(instance: Instance) -> IntArray:
    """Return the choice (size,) of smallest cost where groups stand alone and no step of a peak is against another."""
    choice = np.zeros(instance.size, dtype=np.int64)
    if instance.peaks:
        for step in instance.peaks:
            lowest = _inside(step.table, instance.widths)
            differs = (step.table != step.table[:, :1]).any(axis=1)
            choice[differs] = lowest[differs].argmin(axis=1)
        return choice
    for block in instance.blocks:
        is_rank_one = isinstance(block.cost, RankOne)
        choice[block.groups] = (
            block.cost.right.argmin() if is_rank_one else _inside(block.cost, block.widths).argmin(axis=1)  # type: ignore[union-attr,arg-type]
        )
    if instance.pairs is not None:  # the least of both ends, where a group has nothing of its own
        flat = (instance.tables[0] == instance.tables[0][:, :1]).all(axis=1)
        choice[flat] = instance.pairs.levels[flat].argmin(axis=1)
    return choice


def _least_damaging(instance: Instance) -> IntArray:
    """Return the choice (size,) of smallest damage; near candidates of ties are told apart exactly."""
    choice = np.zeros(instance.size, dtype=np.int64)
    for block in instance.blocks:
        is_rank_one = isinstance(block.damage, RankOne)
        choice[block.groups] = (
            block.damage.right.argmin() if is_rank_one else _inside(block.damage, block.widths).argmin(axis=1)  # type: ignore[union-attr,arg-type]
        )
    # Ties have the last blocks, one each.
    for tie, block in zip(instance.ties, instance.blocks[len(instance.blocks) - len(instance.ties) :], strict=True):
        table = block.tables()[1]
        with np.errstate(over="ignore"):  # what is close to the end of float64 is close to infinity
            close = table <= table.min(axis=1, keepdims=True) * (1 + 1e-12)
        several = np.flatnonzero(close.sum(axis=1) > 1)
        if len(several) == 0:
            continue
        damages = member_damages(instance.problem, tie)
        for place in several.tolist():
            sums = {k: exact_sum(damages[place, :, k]) for k in np.flatnonzero(close[place]).tolist()}
            choice[tie.groups[place]] = min(sums, key=lambda k: (sums[k], k))
    return choice


# -- telling -----------------------------------------------------------------------------------------------------


def _told(parts: Parts, known: _Known, conflict: tuple[Item, ...], minimal: bool) -> Diagnosis:
    """Return what one limit of a conflict comes down to under the others."""
    subject = _subject(parts, [item for item in conflict if item[0] in ("bound", "budget")])
    others = tuple(item for item in conflict if item != subject)
    least = known.of_solver(subject, frozenset(others))
    most = parts.most(subject)
    lower = max(least.lower, most) if least.lower < math.inf else most
    alone = known.of_solver(subject, frozenset()) if others else _Least(0)
    without = _float_beside(alone.reached, True) if others and alone.attained and alone.reached is not None else None
    held = tuple(_named(parts, item) for item in others)
    if subject == BOUND and all(kind in ("pins", "ties") for kind, _ in others):
        held += tuple(_largest(parts, frozenset(others)))
    return Diagnosis(
        limit="damage" if subject == BOUND else subject[1],
        smallest=_float_beside(lower, False),
        allowed=_float_beside(most, True),
        held_by=held,
        conflict=conflict,
        minimal=minimal,
        attained=least.attained and least.lower > most,
        without=None if without == math.inf else without,
    )


def _named(parts: Parts, item: Item) -> str:
    kind, name = item
    if kind == "bound":
        return f"the bound {rounded(ceil_float(parts.most(item)), 17)} on damage"
    if kind != "budget":
        return f"the {kind} of {name}"
    most, unit = parts.most(item), parts.row(item).unit
    short = quantity_text(most, unit, up=True)
    exact = short == quantity_text(most, unit)
    return f"the budget {name} of {short if exact else f'{rounded(ceil_float(most), 17)} {unit}'.rstrip()}"


def quantity_text(value: Fraction | float, unit: str, *, up: bool = False) -> str:
    """Return a quantity for people, in a handy unit and rounded down, or up."""
    exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)  # 0.1 is one tenth
    short = format_quantity(value, unit)
    try:
        shown = parse_quantity(short, unit)
    except ImpqError:  # below zero, or a unit of the problem's own that reads differently
        return f"{rounded(_float_beside(exact, up), 17, up=up)} {unit}".rstrip()
    if shown >= exact if up else shown <= exact:
        return short
    count, _, handy = short.partition(" ")
    return f"{rounded(_float_beside(exact * Fraction(count) / shown, up), 6, up=up)} {handy}".rstrip()


def _float_beside(value: Fraction | float, up: bool) -> float:
    return (ceil_float if up else floor_float)(Fraction(value)) + 0.0


def _largest(parts: Parts, held: frozenset[Item]) -> list[str]:
    """Name the groups that have most of the smallest damage."""
    instance = parts.question(BOUND, held, linear=True)
    problem = instance.problem
    choice = instance.lift(_least_damaging(instance))
    damage = problem.damage.chosen(problem.candidates, choice)
    total = exact_sum(damage)
    told = []
    for g in np.argsort(-damage, kind="stable")[:3].tolist():
        share = math.floor(100 * Fraction(float(damage[g])) / total) if total else 0
        label = problem.candidates.label(g, int(choice[g]))
        bits, pinned = "" if problem.candidates.numbered else " bits", " (pinned)" if g in problem.pins else ""
        if share:
            told.append(f"{problem.names[g]} at {label}{bits}{pinned} with at least {share}% of it")
    return told
