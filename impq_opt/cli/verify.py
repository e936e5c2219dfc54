"""``impq-opt verify``: recompute an allocation from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from impq_opt.allocation import number
from impq_opt.audit import Verdict, Verification
from impq_opt.audit import verify as verify_allocation
from impq_opt.cli._common import JsonFlag, ProblemName, console, find_problem, print_json, progress, styled
from impq_opt.errors import OptionError
from impq_opt.files import load_allocation

__all__ = ["verify"]

AllocationFile = Annotated[Path, Parameter(help="A file written by `impq-opt solve -o`.")]

_COLOURS = {Verdict.PROVED: "green", Verdict.TOLD: "dim", Verdict.CLAIMED: "yellow", Verdict.WRONG: "red"}


def verify(
    problem: ProblemName,
    allocation: AllocationFile,
    /,
    *,
    states: Annotated[
        int, Parameter(help="Most partial assignments when a solver's enumeration is repeated.")
    ] = 1_000_000,
    json: JsonFlag = False,
) -> int:
    """Recompute everything an allocation states: what is proved here, what is only claimed, what is wrong."""
    if states < 1:
        raise OptionError("must be positive", where="--states", value=states)
    answer = load_allocation(allocation, find_problem(problem))
    with progress("verifying"):
        found = verify_allocation(answer.problem, answer, states=states)
    if json:
        print_json(_record(found))
    else:
        out = console()
        for check in found.checks:
            verdict = (f"{check.verdict.value:<8}", _COLOURS[check.verdict])
            out.print(styled(verdict, " ", (check.name, "bold"), f": {check.text}"), soft_wrap=True)
        out.print(_conclusion(found), soft_wrap=True)
    return 0 if found.proved else 1


def _conclusion(found: Verification) -> str:
    if not found.ok:
        return "This allocation is not what it says."
    return (
        "Everything it states is proved here." if found.proved else "Nothing is wrong; not everything is proved here."
    )


def _record(found: Verification) -> dict[str, object]:
    lower = found.lower_bound
    return {
        "ok": found.ok,
        "proved": found.proved,
        "lower_bound": None if lower == float("-inf") else number(lower),
        "checks": [{"name": c.name, "verdict": c.verdict.value, "text": c.text} for c in found.checks],
    }
