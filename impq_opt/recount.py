"""Proving a lower bound again by enumeration of one's own: whole numbers, no solver, no floating point that matters.

Given multipliers, every assignment x satisfies objective(x) >= D + sum_g r_g(x) for the dual bound D and reduced costs
r >= 0, if x keeps the limits. So an assignment below a target L uses only choices with r <= L' - D, where L' is the
largest value below L that an objective can have. They are few: all their combinations are enumerated here, without
those that another one beats in every respect.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum, exact_sum, nearest_float
from impq_opt.idle import idle_groups, least_damage
from impq_opt.instance import Direction, Instance
from impq_opt.locality import is_local
from impq_opt.reduction import settle
from impq_opt.verification import dual_bound

__all__ = ["Outcome", "Recount", "prove_bound"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_EPS = 2.0**-53


class Outcome(enum.Enum):
    """How an enumeration ended."""

    PROVED = "proved"
    REFUTED = "refuted"  # an assignment below the target was found
    OPEN = "open"  # too many states


@dataclass(frozen=True)
class Recount:
    """What was enumerated; ``better`` is an assignment below the target where there is one."""

    outcome: Outcome
    groups: int
    states: int
    better: IntArray | None = None


@dataclass(frozen=True)
class _Choice:
    """One candidate of a core group, in whole numbers: objective, limited quantities, reduced cost."""

    column: int
    objective: int
    limited: tuple[int, ...]
    reduced: int


@dataclass(frozen=True)
class _State:
    objective: int
    limited: tuple[int, ...]
    reduced: int
    trail: tuple[_Choice, object] | None


def prove_bound(
    instance: Instance, multipliers: Mapping[str, float], target: Fraction | int, *, states: int = 1_000_000
) -> Recount:
    """Say whether any assignment that keeps the limits has an objective below ``target``.

    Parameters
    ----------
    multipliers : mapping
        As in a certificate; they need not be good, but good ones leave little to enumerate.
    target : Fraction or int
        In quanta where cost is minimised, in damage otherwise.
    states : int
        Most partial assignments to look at.
    """
    below = dual_bound(instance, multipliers)
    if below >= target:
        return Recount(Outcome.PROVED, 0, 0)
    idle = idle_groups(instance)
    columns = least_damage(instance, idle) if len(idle) and not instance.ties else None
    if columns is None or not len(columns):
        return _prove(instance, multipliers, below, Fraction(target), states)
    if len(idle) == instance.size:  # less damage than this there is not, and all cost the same
        value = instance.cost_of(columns) if instance.direction is Direction.COST else instance.damage_of(columns)
        refuted = value < target and instance.is_feasible(columns)
        return Recount(Outcome.REFUTED, len(idle), 1, columns) if refuted else Recount(Outcome.PROVED, len(idle), 1)
    rest = settle(instance, idle, columns)
    left = {"bound", "budget"} | {budget.name for budget in rest.budgets}
    kept = {name: value for name, value in multipliers.items() if name in left}
    found = prove_bound(rest, kept, target, states=states)
    return found if found.better is None else replace(found, better=_with(instance, idle, columns, found.better))


def _prove(
    instance: Instance, multipliers: Mapping[str, float], below: Fraction | float, target: Fraction, states: int
) -> Recount:
    if instance.coupled or instance.peaks or any(map(is_local, instance.budgets)):
        return _every_assignment(instance, target, states)
    highest = _highest_below(instance, target)
    if below > highest:
        return Recount(Outcome.PROVED, 0, 0)
    room = math.inf if below == -math.inf else highest - Fraction(below)
    open_ = _open_columns(instance, multipliers, room)
    counts = open_.sum(axis=1)
    if (counts == 0).any():
        return Recount(Outcome.PROVED, 0, 0)  # some group has no choice left
    core = np.flatnonzero(counts > 1)
    if len(core) > 4 * states:
        return Recount(Outcome.OPEN, len(core), 0)
    return _enumerate(_Core.build(instance, multipliers, open_, core, target, room), states)


def _with(instance: Instance, groups: IntArray, columns: IntArray, others: IntArray) -> IntArray:
    """Return the choice (size,) that gives ``groups`` their ``columns`` and the rest ``others``."""
    inside = np.zeros(instance.size, dtype=bool)
    inside[groups] = True
    choice = np.empty(instance.size, dtype=np.int64)
    choice[inside], choice[~inside] = columns, others
    return choice


def _highest_below(instance: Instance, target: Fraction) -> Fraction:
    """Return the largest value that an objective below ``target`` may have.

    Costs are whole, and all differ by multiples of the greatest common divisor of their differences.
    """
    if instance.direction is Direction.DAMAGE:
        return target
    cost = instance.tables[0]
    step = int(np.gcd.reduce((cost - cost[:, :1]).ravel())) or 1
    highest = math.ceil(target) - 1
    some = instance.base_cost + exact_int_sum(cost[:, 0])
    return Fraction(highest - (highest - some) % step)


def _open_columns(
    instance: Instance, multipliers: Mapping[str, float], room: Fraction | float
) -> npt.NDArray[np.bool_]:
    """Return the choices (size, K) whose reduced cost may be up to ``room``; rounding errors leave a choice open."""
    inside = np.arange(int(instance.widths.max())) < instance.widths[:, None]
    if room == math.inf:
        return inside
    cost, damage = instance.tables
    excess = (cost - cost.min(axis=1, keepdims=True)).astype(np.float64)
    main, other = (excess, damage) if instance.direction is Direction.COST else (damage, excess)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not a number closes nothing
        value = main + multipliers.get(_limit_name(instance), 0.0) * other
        for budget in instance.budgets:
            row = budget.table - budget.table.min(axis=1, keepdims=True)
            value = value + multipliers.get(budget.name, 0.0) * row.astype(np.float64)
        # Each value is within a few roundings of the exact one, all terms being non-negative; a tie adds its members'.
        members = max((tie.members.shape[1] for tie in instance.ties), default=0)
        error = (16 + 4 * len(instance.budgets) + 2 * members) * _EPS * value
        reduced = value - np.where(inside, value, np.inf).min(axis=1, keepdims=True)
        closed = reduced - error > nearest_float(room) * (1 + 2**-50)
    found: npt.NDArray[np.bool_] = inside & ~closed
    return found


def _limit_name(instance: Instance) -> str:
    return "bound" if instance.direction is Direction.COST else "budget"


@dataclass(frozen=True)
class _Core:
    """The groups with more than one open choice, and what all others add."""

    instance: Instance
    fixed: IntArray
    groups: IntArray
    choices: list[list[_Choice]]
    start: _State
    target: int
    limits: tuple[int, ...]
    room: int | None

    @classmethod
    def build(
        cls,
        instance: Instance,
        multipliers: Mapping[str, float],
        open_: npt.NDArray[np.bool_],
        core: IntArray,
        target: Fraction,
        room: Fraction | float,
    ) -> _Core:
        cost, damage = instance.tables
        # Groups that differ most in cost separate the states best.
        core = core[np.argsort(-np.ptp(cost[core], axis=1), kind="stable")]
        fixed = open_.argmax(axis=1)
        rest = np.setdiff1d(np.arange(instance.size), core)
        by_cost = instance.direction is Direction.COST
        # Damages become whole numbers of 1 / scale.
        tied = _tied_damages(instance)
        single = np.array([g for g in rest.tolist() if g not in tied], dtype=np.int64) if tied else rest
        base_damage = instance.base_damage + exact_sum(damage[single, fixed[single]])
        base_damage += sum((tied[g][int(fixed[g])] for g in rest.tolist() if g in tied), Fraction(0))
        used = {float(d).as_integer_ratio()[1] for d in damage[core].ravel().tolist()}
        used |= {d.denominator for g in core.tolist() for d in tied.get(g, ())}
        bound = instance.bound if instance.bound is not None else Fraction(0)
        scale = math.lcm(base_damage.denominator, *used)
        base_cost = instance.base_cost + exact_int_sum(cost[rest, fixed[rest]])
        whole_damage = int(base_damage * scale)
        objective = base_cost if by_cost else whole_damage
        limited = [whole_damage if by_cost else base_cost]
        limits = [math.floor(bound * scale) if by_cost else int(instance.limit or 0)]
        if by_cost and instance.bound is None:
            limited, limits = [], []  # only budgets
        for budget in instance.budgets:
            limited.append(budget.base + exact_int_sum(budget.table[rest, fixed[rest]]))
            limits.append(budget.limit)
        tables = _Tables(instance, multipliers, scale, tied)
        return cls(
            instance=instance,
            fixed=fixed,
            groups=core,
            choices=[tables.choices(int(g), np.flatnonzero(open_[g]).tolist()) for g in core],
            start=_State(objective, tuple(limited), 0, None),
            target=math.ceil(target if by_cost else target * scale),
            limits=tuple(limits),
            room=None if isinstance(room, float) else math.floor(room * tables.unit),
        )


class _Tables:
    """Choices in whole numbers: damages times ``scale``, reduced costs times ``unit``."""

    def __init__(
        self, instance: Instance, multipliers: Mapping[str, float], scale: int, tied: dict[int, list[Fraction]]
    ) -> None:
        self.instance, self.scale, self.tied = instance, scale, tied
        self.limited = instance.direction is Direction.DAMAGE or instance.bound is not None
        self.price = Fraction(multipliers.get(_limit_name(instance), 0.0))
        self.prices = [Fraction(multipliers.get(budget.name, 0.0)) for budget in instance.budgets]
        self.unit = scale * math.lcm(self.price.denominator, *(p.denominator for p in self.prices))

    def choices(self, group: int, columns: list[int]) -> list[_Choice]:
        """Return the open choices of ``group``; reduced costs are against its best choice of all."""
        cost, damage = self.instance.tables
        found = []
        for column in range(int(self.instance.widths[group])):
            exact = self.tied[group][column] if group in self.tied else Fraction(float(damage[group, column]))
            rows = [int(budget.table[group, column]) for budget in self.instance.budgets]
            found.append((int(cost[group, column]), exact, rows))
        values = [self._lagrangian(*one) for one in found]
        least = min(values)
        by_cost = self.instance.direction is Direction.COST
        choices = []
        for column in columns:
            whole_cost, exact, rows = found[column]
            whole_damage = int(exact * self.scale)
            main, other = (whole_cost, whole_damage) if by_cost else (whole_damage, whole_cost)
            limited = ((other,) if self.limited else ()) + tuple(rows)
            choices.append(_Choice(column, main, limited, values[column] - least))
        return choices

    def _lagrangian(self, cost: int, damage: Fraction, rows: list[int]) -> int:
        by_cost = self.instance.direction is Direction.COST
        total = cost + self.price * damage if by_cost else damage + self.price * cost
        total += sum((p * row for p, row in zip(self.prices, rows, strict=True)), Fraction(0))
        return math.floor(total * self.unit)  # exact: the unit holds all denominators


def _tied_damages(instance: Instance) -> dict[int, list[Fraction]]:
    """Return the exact damage of each candidate of each tie; the tables hold it rounded down."""
    problem = instance.problem
    sets = problem.candidates.set_of
    found: dict[int, list[Fraction]] = {}
    for tie in instance.ties:
        parts = []
        for members, columns in zip(tie.members.T, tie.columns, strict=True):
            bits = problem.candidates.sets[0 if sets is None else int(sets[members[0]])]
            parts.append(problem.damage.at(members, bits)[:, columns])
        table = np.stack(parts)  # (members, ties, K)
        for place, group in enumerate(tie.groups.tolist()):
            found[group] = [exact_sum(table[:, place, k]) for k in range(table.shape[2])]
    return found


def _every_assignment(instance: Instance, target: Fraction, most: int) -> Recount:
    """Try all assignments of a small instance whose costs or limits couple groups."""
    widths = instance.widths.tolist()
    count = math.prod(widths)
    if count * instance.size > most // 10:  # an exact check of one costs about as much as ten states
        return Recount(Outcome.OPEN, instance.size, 0)
    for choice in itertools.product(*map(range, widths)):
        array = np.array(choice, dtype=np.int64)
        value = instance.cost_of(array) if instance.direction is Direction.COST else instance.damage_of(array)
        if value < target and instance.is_feasible(array):
            return Recount(Outcome.REFUTED, instance.size, count, array)
    return Recount(Outcome.PROVED, instance.size, count)


def _enumerate(core: _Core, most: int) -> Recount:
    rest_objective, rest_limited = _smallest_rest(core)
    start = core.start  # with an empty core it is the only assignment
    keeps = all(value <= limit for value, limit in zip(start.limited, core.limits, strict=True))
    states, looked = [start] if core.choices or (start.objective < core.target and keeps) else [], 0
    for place, choices in enumerate(core.choices):
        grown = []
        for state in states:
            looked += len(choices)
            if looked > most:
                return Recount(Outcome.OPEN, len(core.groups), looked)
            for choice in choices:
                reduced = state.reduced + choice.reduced
                objective = state.objective + choice.objective
                if core.room is not None and reduced > core.room:
                    continue
                if objective + rest_objective[place] >= core.target:
                    continue
                limited = tuple(a + b for a, b in zip(state.limited, choice.limited, strict=True))
                if any(v + r > m for v, r, m in zip(limited, rest_limited[place], core.limits, strict=True)):
                    continue
                grown.append(_State(objective, limited, reduced, (choice, state.trail)))
        states = _undominated(grown)
    for state in states:
        choice_array = _assignment(core, state)
        if core.instance.is_feasible(choice_array):
            return Recount(Outcome.REFUTED, len(core.groups), looked, choice_array)
        raise AssertionError("an enumerated assignment breaks a limit: please report this instance")
    return Recount(Outcome.PROVED, len(core.groups), looked)


def _smallest_rest(core: _Core) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return, after each group, the least that the later groups add to the objective and to what is limited."""
    objective, limited = 0, (0,) * len(core.limits)
    objectives, limiteds = [], []
    for choices in reversed(core.choices):
        objectives.append(objective)
        limiteds.append(limited)
        objective += min(c.objective for c in choices)
        limited = tuple(v + min(c.limited[i] for c in choices) for i, v in enumerate(limited))
    return objectives[::-1], limiteds[::-1]


def _undominated(states: list[_State]) -> list[_State]:
    """Drop states that another one beats; with several limits only equal ones."""
    if not states or len(states[0].limited) > 1:
        return list({(s.objective, s.limited): s for s in states}.values())
    kept: list[_State] = []
    for state in sorted(states, key=lambda s: (s.objective, s.limited)):
        if not kept or state.limited < kept[-1].limited:
            kept.append(state)
    return kept


def _assignment(core: _Core, state: _State) -> IntArray:
    choice = core.fixed.copy()
    trail: object = state.trail
    for group in core.groups[::-1].tolist():
        assert isinstance(trail, tuple)
        choice[group] = trail[0].column
        trail = trail[1]
    return choice
