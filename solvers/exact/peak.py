"""The least of a peak: bisection, each question answered by what else is limited, below a limit on every step.

Which choices keep every step within a limit is decided exactly: steps are limits on few groups, which elimination keeps
(:mod:`impq_opt.instance.local`). Among them the least damage is looked for, or where there are budgets the least of the
first one: the limit is within reach where that meets its own. The answer meets it, and one quantum less does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from impq_opt.exactness.limits import ABOVE_ALL_DAMAGE
from impq_opt.instance.contract import Claim, Control
from impq_opt.instance.cost_row import cost_row
from impq_opt.instance.instance import Block, Instance
from impq_opt.instance.local import is_local
from impq_opt.problem.allocation import Enumeration, Stop
from impq_opt.solvers.exact.small import enumerated
from impq_opt.solvers.lagrange.dual import FEW_STEPS, dual_prices

__all__ = ["solve_peak"]


def solve_peak(
    instance: Instance, control: Control, inner: Callable[[Instance, Control, int | Fraction], Claim], few: int
) -> Claim:
    """Return what can be claimed about the least peak; ``inner`` says whether a question's limit can be met.

    Up to ``few`` assignments are enumerated instead.
    """
    answer = enumerated(instance, control, few)
    if answer is not None:
        return _priced(answer, instance, control)
    ends = [step.ends for step in instance.peaks]
    low = int(max(least for least, _ in ends)) - 1  # out of reach
    high = limit = int(max(most for _, most in ends))
    best, asked, stop = None, 0, Stop.COMPLETED
    prices: dict[str, float] = {}
    while best is None or high - low > 1:
        question, name, enough = _below(instance, limit)
        claim = inner(question, control, enough)
        asked += 1
        reached = None if claim.choice is None else instance.cost_of(claim.choice)
        if claim.choice is not None and reached is not None and reached <= limit and instance.is_feasible(claim.choice):
            best, high = claim.choice, reached
        elif claim.enumeration is not None and claim.lower_bound > enough:
            low, prices = limit, {**claim.multipliers, name: 1.0}
            if best is None:
                return Claim(lower_bound=math.inf, enumeration=Enumeration(instance.size, asked))
        else:
            stop = claim.stop if claim.stop is not Stop.COMPLETED else Stop.STATE_LIMIT
            break
        limit = (low + high) // 2
    return Claim(best, low + 1, prices, Enumeration(instance.size, asked), stop, {"questions": asked})


def _priced(answer: Claim, instance: Instance, control: Control) -> Claim:
    """Give an enumerated answer the prices that say something about the question one quantum below it."""
    if answer.choice is None:
        return answer
    question, name, _ = _below(instance, instance.cost_of(answer.choice) - 1)
    return replace(answer, multipliers={**dual_prices(question, control, FEW_STEPS), name: 1.0})


def _below(instance: Instance, limit: int) -> tuple[Instance, str, int | Fraction]:
    """Return the question with every step at most ``limit``, and which limit (name, value) its least is to meet."""
    below = instance.below_peak(limit)
    budgets = [row for row in instance.budgets if not is_local(row)]
    if not budgets:
        most = Fraction(ABOVE_ALL_DAMAGE) if instance.bound is None else instance.bound
        return replace(below, limit=limit, bound=None), instance.damage.name, most
    first = budgets[0]
    assert isinstance(first.limit, int) and isinstance(first.base, int)
    widths = None if (instance.widths == first.table.shape[1]).all() else instance.widths
    cost = replace(
        below,
        row=cost_row(instance.problem, {first.term: 1}),
        blocks=(Block(slice(None), first.table, instance.tables[1], widths),),
        base_cost=first.base,
        pairs=first.pairs,
        budgets=tuple(row for row in below.budgets if row is not first),
    )
    return cost, first.name, first.limit
