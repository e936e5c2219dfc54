"""``impq-opt audit``: what another tool chose, held against the best under the same scores."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import CHOOSERS
from impq_opt.cli._common import JsonFlag, Output, check_ending, spare, write_output
from impq_opt.cli._goals import Many, cost_unit, damage_name
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import console, cost_text, counted, grid, number, print_json
from impq_opt.cli._streams import say
from impq_opt.cli.import_ import AcceptZeros, format_of, names_problem, read_scores
from impq_opt.errors import OptionError
from impq_opt.exchange import Chooser, format_names
from impq_opt.files import save_allocation
from impq_opt.insight.audit import Audit
from impq_opt.insight.audit import audit as hold_against
from impq_opt.problem.allocation import Allocation, Status
from impq_opt.problem.plain import number as plain_number

__all__ = ["audit"]


def audit(
    scores: Annotated[str, Parameter(help="The tool's scores, or a problem.")],
    choice: Annotated[Path, Parameter(help="What the tool chose; a ModelOpt search state has both.")],
    /,
    *,
    source: Annotated[
        str, CHOOSERS, Parameter(name="--from", help="The format of both; of the choice alone beside a problem.")
    ],
    option: Annotated[list[str] | None, Many, Parameter(help="KEY=VALUE, an option of the format.")] = None,
    accept_zeros: AcceptZeros = False,
    time_limit: Annotated[float | None, Parameter(help="Seconds for each of the two questions.")] = None,
    json: JsonFlag = False,
    output: Output = None,
) -> int:
    """Say how far what another tool chose is from the best under the same scores, and what it overspent.

    The file to write is the allocation of least damage that costs no more.
    """
    check_ending(output, ".json")
    spare(output, scores, choice)
    chooser = format_of("--from", source, option)
    if not isinstance(chooser, Chooser):
        raise OptionError(
            "tells no choice that is read", where="--from", value=source, hint=", ".join(format_names(chooses=True))
        )
    ours = names_problem(scores) and not Path(scores).is_dir()  # scores may be a folder of files
    problem = read_scores(scores, (), None if ours else source, accept_zeros=accept_zeros)
    columns = chooser.read_choice(choice, problem)
    with progress("solving for better ones", time_limit):
        found = hold_against(problem, columns, time_limit=time_limit)
    if output is not None:
        if found.better.choice is None:
            say("nothing is written: no allocation was found")
        else:
            write_output(output, lambda path: save_allocation(found.better, path))
    if json:
        print_json(_record(found))
    else:
        _print(found)
    return 0 if found.better.status is found.cheaper.status is Status.OPTIMAL else 1


def _record(found: Audit) -> dict[str, Any]:
    def side(answer: Allocation) -> dict[str, Any]:
        return {
            "status": answer.status.value,
            "cost": None if answer.exact_cost is None else plain_number(answer.exact_cost),
            "damage": None if answer.exact_damage is None else plain_number(answer.exact_damage),
            "lower_bound": None if answer.choice is None else answer.lower_bound,
            "groups_changed": found.differ(answer),
        }

    return {
        "groups": len(found.problem),
        "cost": plain_number(found.cost),
        "damage": plain_number(found.damage),
        "unit": cost_unit(found.better),
        "breaks": found.breaks,
        "optimal": found.optimal,
        "least_damage": side(found.better),
        "least_cost": side(found.cheaper),
    }


def _print(found: Audit) -> None:
    out, unit = console(), cost_unit(found.better)
    out.print(f"{counted(len(found.problem), 'group')}; scores: {damage_name(found.problem)}")
    table = grid("", ">cost", ">damage", ">groups changed", "status")
    table.add_row("chosen", cost_text(found.cost, unit), number(found.damage), "", "")
    for name, answer in (("least damage at that cost", found.better), ("least cost at that damage", found.cheaper)):
        table.add_row(
            name,
            cost_text(answer.exact_cost, unit),
            number(answer.exact_damage),
            "" if answer.choice is None else f"{found.differ(answer):,}",
            answer.status.value,
        )
    out.print(table)
    out.print(_sentence(found, unit))
    for note in found.problem.notes():
        say(note)
    if found.breaks:
        say(f"the choice breaks what the problem asks for, which better ones keep: {found.breaks}")


def _sentence(found: Audit, unit: str) -> str:
    if found.optimal and not found.excess_cost:
        return "no allocation of that cost has less damage: the choice is optimal, proved"
    parts = []
    if found.excess_damage is not None and found.excess_damage > 0:
        # A share of damages that count from each group's smallest score would be one of a sum that nobody measured.
        shifted = "damage_offset" in found.problem.provenance
        much = f"{number(found.excess_damage)}" if shifted else _share(found.excess_damage, found.damage)
        parts.append(f"{much} of the damage is more than that cost needs")
    if found.excess_cost is not None and found.excess_cost > 0:
        parts.append(f"{cost_text(found.excess_cost, unit)} ({_share(found.excess_cost, found.cost)}) are overspent")
    proved = found.better.status is found.cheaper.status is Status.OPTIMAL
    if not parts:
        return "no better allocation was found" + ("" if proved else ", nor ruled out")
    return "; ".join(parts) + (", proved" if proved else "; not proved to be all")


def _share(part: Fraction, whole: Fraction) -> str:
    return f"{float(part / whole):.2%}" if whole > 0 else number(part)
