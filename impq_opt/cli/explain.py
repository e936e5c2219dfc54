"""``impq-opt explain``: why a group has its bits, and what would change them."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._common import WHOLE, JsonFlag, ProblemName, find_problem, refuse, say
from impq_opt.cli._goals import cost_unit, damage_name, question_text
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import console, cost_text, counted, grid, print_json, styled
from impq_opt.cli._screen import number as number_text
from impq_opt.cli.verify import AllocationFile
from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.files import load_allocation
from impq_opt.insight.explain import Alternative, Change, Explanation, Overview, overview
from impq_opt.insight.explain import explain as explain_group
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.plain import number

__all__ = ["explain"]


def explain(
    problem: ProblemName,
    allocation: AllocationFile,
    group: Annotated[str | None, Parameter(help="A group; without one, the groups closest to changing.")] = None,
    /,
    *,
    count: Annotated[
        int | None, WHOLE, Parameter(help="How many groups to list when none is named; 20 unless given.")
    ] = None,
    solve_again: Annotated[
        bool | None, Parameter(help="With a group: solve the changed problems (as is done unless told not to).")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Say why a group has its bits, what one bit more or less costs and saves, and what would change them."""
    if count is not None and count < 1:
        raise OptionError("must be positive", where="--count", value=count)
    if group is None and solve_again is not None:
        option = "--solve-again" if solve_again else "--no-solve-again"
        raise OptionError("goes with a group", where=option)
    if group is not None:
        refuse("--count", count, "goes with the list of groups: none is named then")
    answer = load_allocation(allocation, find_problem(problem))
    with progress("solving changed problems"):
        if group is None:
            explanation: Any = overview(answer.problem, answer, count=count or 20)
        else:
            explanation = explain_group(answer.problem, answer, group, solve_again=solve_again is not False)
    if json:
        print_json(_plain(dataclasses.asdict(explanation)))
    elif isinstance(explanation, Overview):
        _print_overview(explanation, answer)
    else:
        _print_group(explanation, answer)
    return 0


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Fraction):
        return number(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- for people --------------------------------------------------------------------------------------------------


class _Words:
    """Amounts of what is minimised and of what is limited, in their units."""

    def __init__(self, answer: Allocation) -> None:
        self.answer = answer
        self.unit = cost_unit(answer)
        self.by_cost = answer.minimizes == "cost"
        self.cost_name = " + ".join(answer.cost_weights)
        self.plain = not (answer.problem.candidates.numbered or answer.problem.candidates.formats)

    def bits(self, label: str) -> str:
        """Return a candidate in words: ``"1 bit"``, or its number or name."""
        return f"{label} {'bit' if label == '1' else 'bits'}" if self.plain else label

    def cost(self, value: float) -> str:
        return cost_text(value, self.unit)

    def damage(self, value: float) -> str:
        bound = self.answer.bound
        share = f" ({value / nearest_float(bound):.2g} of the bound)" if bound else ""
        return f"{number_text(value)}{share}"

    def objective(self, value: float) -> str:
        return self.cost(value) if self.by_cost else number_text(value)

    def price(self, price: float) -> str:
        if not price:
            return "the limit is not what holds the bits up: its price is 0"
        if self.by_cost:
            part = nearest_float(self.answer.bound or 1) / 100
            return f"a hundredth of the bound is worth {self.cost(price * part)} of {self.cost_name}"
        step = 8192 if self.unit == "bit" else 1
        return f"{self.cost(step)} of {self.cost_name} is worth {number_text(price * step)} of damage"


def _print_overview(summary: Overview, answer: Allocation) -> None:
    words, out = _Words(answer), console()
    out.print(f"{counted(len(answer.problem), 'group')}, {question_text(answer)}")
    out.print(f"price: {words.price(summary.price)}")
    if answer.together is not None and answer.exact_damage is not None:
        out.print(answer.together.line(answer.exact_damage))
    slack = "unknown" if math.isinf(summary.slack) else words.objective(summary.slack)
    out.print(
        f"near-ties: {summary.near_ties} of {counted(summary.free_groups, 'group')} have another candidate that is "
        f"behind by at most the {slack} between the answer and its dual bound"
    )
    if not summary.rows:
        return
    out.print()
    out.print("closest to changing, by multipliers:", style="bold")
    table = grid("group", ">bits", ">next", ">behind", "")
    for name, label, other, behind, near in summary.rows:
        table.add_row(name, label, other, words.objective(behind), "near-tie" if near else "")
    out.print(table)


def _print_group(explanation: Explanation, answer: Allocation) -> None:
    words, out = _Words(answer), console()
    held = f" ({explanation.held})" if explanation.held else ""
    out.print(styled((explanation.name, "bold"), f": {words.bits(explanation.label)}{held}"))
    if not explanation.candidates:
        out.print("It has no choice.")
        if answer.problem.names.index_of(explanation.name) in answer.problem.kept:
            say("--pin, or --free-unmeasured for all such groups, gives it one when solving")
        return
    out.print(f"price: {words.price(explanation.price)}")
    out.print(f"why:   {_why(explanation, words)}")
    out.print()
    table = grid(">bits", f">{words.cost_name}", ">damage", ">behind the best", "")
    for candidate in explanation.candidates:
        note = "chosen" if candidate.chosen else "near-tie" if candidate.near_tie else ""
        table.add_row(
            candidate.label,
            words.cost(candidate.cost),
            number_text(candidate.damage),
            words.objective(candidate.reduced_cost),
            note,
        )
    out.print(table)
    out.print()
    for step in explanation.alternatives:
        out.print(f"{words.bits(step.label)} instead: {_step(step, words)}")
    for change in explanation.changes:
        out.print(_change(change, words))


def _why(explanation: Explanation, words: _Words) -> str:
    best, chosen = explanation.best, next(c for c in explanation.candidates if c.chosen)
    assert best is not None
    if best.chosen:
        near = [c.label for c in explanation.candidates if c.near_tie]
        text = f"at this price {words.bits(chosen.label)} is the best that the group can do by itself"
        return text + (f"; {', '.join(near)} would be within the gap" if near else "")
    behind = words.objective(chosen.reduced_cost)
    text = f"by itself it would take {words.bits(best.label)} at this price"
    return f"{text}; {words.bits(chosen.label)} is {behind} behind, and fits better with the other groups' choices"


def _step(step: Alternative, words: _Words) -> str:
    cost = f"{'costs' if step.cost_change >= 0 else 'saves'} {words.cost(abs(step.cost_change))}"
    damage = f"{'adds' if step.damage_change >= 0 else 'takes off'} {words.damage(abs(step.damage_change))} of damage"
    text = f"{cost}, {damage}"
    if math.isnan(step.increase):
        return text
    if step.objective is None:
        return f"{text}; nothing keeps the limits then (solved again)"
    change = "worse" if step.increase > 0 else "better"
    total = f"{words.objective(abs(step.increase))} {change}" if step.increase else "as good as now"
    return f"{text}; the best around it is {total} (solved again{'' if step.proved else ', not proved'})"


def _change(change: Change, words: _Words) -> str:
    by_bound = change.limit == "bound"
    value = number_text(change.value) if by_bound else words.cost(change.value)
    now = words.answer.bound if by_bound else words.answer.budgets[change.limit]
    name = f"the {damage_name(words.answer.problem)}" if by_bound else f"the {change.limit} budget"
    moves = "falls" if now is not None and change.value < now else "rises"
    text = f"{words.bits(change.label)} once {name} {moves} to about {value} (by multipliers"
    again = "" if change.solved_again is None else f"; solved again there: {words.bits(change.solved_again)}"
    return f"{text}{again})"
