"""Proving a lower bound again by enumeration of one's own: whole numbers, no solver, no floating point that matters.

Given multipliers, every assignment x satisfies objective(x) >= D + sum_g r_g(x) for the dual bound D and reduced costs
r >= 0, if x keeps the limits. So an assignment below a target L uses only choices with r < L - D. They are few: all
their combinations are enumerated here, without those that another one beats in every respect.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from impq_opt.arithmetic import exact_int_sum, exact_sum
from impq_opt.instance import Direction, Instance
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
    room = math.inf if below == -math.inf else Fraction(target) - Fraction(below)
    open_ = _open_columns(instance, multipliers, room)
    counts = open_.sum(axis=1)
    if (counts == 0).any():
        return Recount(Outcome.PROVED, 0, 0)  # some group has no choice left
    core = np.flatnonzero(counts > 1)
    if len(core) > 4 * states:
        return Recount(Outcome.OPEN, len(core), 0)
    return _enumerate(_Core.build(instance, multipliers, open_, core, Fraction(target), room), states)


def _open_columns(
    instance: Instance, multipliers: Mapping[str, float], room: Fraction | float
) -> npt.NDArray[np.bool_]:
    """Return the choices (size, K) whose reduced cost may be below ``room``; rounding errors leave a choice open."""
    inside = np.arange(int(instance.widths.max())) < instance.widths[:, None]
    if room == math.inf:
        return inside
    cost, damage = instance.tables
    excess = (cost - cost.min(axis=1, keepdims=True)).astype(np.float64)
    main, other = (excess, damage) if instance.direction is Direction.COST else (damage, excess)
    with np.errstate(over="ignore"):
        value = main + multipliers.get(_limit_name(instance), 0.0) * other
        for budget in instance.budgets:
            row = budget.table - budget.table.min(axis=1, keepdims=True)
            value = value + multipliers.get(budget.name, 0.0) * row.astype(np.float64)
        # Each value is within a few roundings of the exact one, all terms being non-negative.
        error = (16 + 4 * len(instance.budgets)) * _EPS * value
        reduced = value - np.where(inside, value, np.inf).min(axis=1, keepdims=True)
        closed = reduced - error > float(room) * (1 + 2**-50)
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
        used = {float(d) for d in damage[core].ravel().tolist()}
        base_damage = instance.base_damage + exact_sum(damage[rest, fixed[rest]])
        bound = instance.bound if instance.bound is not None else Fraction(0)
        scale = math.lcm(base_damage.denominator, *(d.as_integer_ratio()[1] for d in used))
        base_cost = instance.base_cost + exact_int_sum(cost[rest, fixed[rest]])
        whole_damage = int(base_damage * scale)
        objective = base_cost if by_cost else whole_damage
        limited = [whole_damage if by_cost else base_cost]
        limits = [math.floor(bound * scale) if by_cost else int(instance.limit or 0)]
        if by_cost and instance.bound is None:
            limited, limits = [], []
        for budget in instance.budgets:
            limited.append(budget.base + exact_int_sum(budget.table[rest, fixed[rest]]))
            limits.append(budget.limit)
        tables = _Tables(instance, multipliers, scale, bool(limited) and (not by_cost or instance.bound is not None))
        return cls(
            instance=instance,
            fixed=fixed,
            groups=core,
            choices=[tables.choices(int(g), np.flatnonzero(open_[g]).tolist()) for g in core],
            start=_State(objective, tuple(limited), 0, None),
            target=math.ceil(target if by_cost else target * scale),
            limits=tuple(limits),
            room=None if isinstance(room, float) else math.ceil(room * tables.unit),
        )


class _Tables:
    """Choices in whole numbers: damages times ``scale``, reduced costs times ``unit``."""

    def __init__(self, instance: Instance, multipliers: Mapping[str, float], scale: int, limited: bool) -> None:
        self.instance, self.scale, self.limited = instance, scale, limited
        self.price = Fraction(multipliers.get(_limit_name(instance), 0.0))
        self.prices = [Fraction(multipliers.get(budget.name, 0.0)) for budget in instance.budgets]
        self.unit = scale * math.lcm(self.price.denominator, *(p.denominator for p in self.prices))

    def choices(self, group: int, columns: list[int]) -> list[_Choice]:
        """Return the open choices of ``group``; reduced costs are against its best choice of all."""
        cost, damage = self.instance.tables
        found = []
        for column in range(int(self.instance.widths[group])):
            whole_cost = int(cost[group, column])
            numerator, denominator = float(damage[group, column]).as_integer_ratio()
            rows = [int(budget.table[group, column]) for budget in self.instance.budgets]
            found.append((column, whole_cost, numerator, denominator, rows))
        values = [self._lagrangian(*one[1:]) for one in found]
        least = min(values)
        by_cost = self.instance.direction is Direction.COST
        choices = []
        for (column, whole_cost, numerator, denominator, rows), value in zip(found, values, strict=True):
            if column not in columns:
                continue
            whole_damage = numerator * (self.scale // denominator)
            main, other = (whole_cost, whole_damage) if by_cost else (whole_damage, whole_cost)
            choices.append(_Choice(column, main, ((other,) if self.limited else ()) + tuple(rows), value - least))
        return choices

    def _lagrangian(self, cost: int, numerator: int, denominator: int, rows: list[int]) -> int:
        damage = Fraction(numerator, denominator)
        by_cost = self.instance.direction is Direction.COST
        total = cost + self.price * damage if by_cost else damage + self.price * cost
        total += sum((p * row for p, row in zip(self.prices, rows, strict=True)), Fraction(0))
        return math.floor(total * self.unit)  # exact: the unit holds all denominators


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
                if core.room is not None and reduced >= core.room:
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
    # What is left here breaks a limit only by the rounding of tied sums, and may hide what it dominated.
    return Recount(Outcome.OPEN if states else Outcome.PROVED, len(core.groups), looked)


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
