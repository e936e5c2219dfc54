"""``impq-opt verify``: recompute an allocation from its files alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from impq_opt import problems
from impq_opt.cli._common import WHOLE, JsonFlag, ProblemName, check_ending, find_problem, refuse
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import console, print_json, styled
from impq_opt.cli._streams import say
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import OptionError
from impq_opt.files import load_allocation, save_problem
from impq_opt.judge.checks import Verdict, Verification
from impq_opt.judge.verify import verify as verify_allocation
from impq_opt.problem.plain import number

__all__ = ["verify"]

AllocationFile = Annotated[Path, Parameter(help="A file written by `impq-opt solve -o`.")]

_COLOURS = {Verdict.PROVED: "green", Verdict.TOLD: "dim", Verdict.CLAIMED: "yellow", Verdict.WRONG: "red"}


def verify(
    problem: ProblemName,
    allocation: AllocationFile,
    /,
    *,
    states: Annotated[
        int | None,
        WHOLE,
        Parameter(
            help="Most partial assignments when a solver's enumeration is repeated, bounds counted in as many as "
            "take as long; 1000000 unless given."
        ),
    ] = None,
    standalone: Annotated[
        Path | None,
        Parameter(help="Write a checker of one page, which needs nothing but Python 3.11, and let it check instead."),
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Recompute everything an allocation states: what is proved here, what is only claimed, what is wrong."""
    if states is not None and states < 1:
        raise OptionError("must be positive", where="--states", value=states)
    if standalone is not None:
        check_ending(standalone, ".py", where="--standalone")
        refuse("--states", states, "does not go with --standalone, which enumerates what is left open itself")
        refuse("--json", json, "does not go with --standalone, which prints lines")
        return _standalone(problem, allocation, standalone)
    answer = load_allocation(allocation, find_problem(problem))
    with progress("verifying"):
        verification = verify_allocation(answer.problem, answer, states=states or 1_000_000)
    if json:
        print_json(_record(verification))
    else:
        out = console()
        for check in verification.checks:
            verdict = (f"{check.verdict.value:<8}", _COLOURS[check.verdict])
            out.print(styled(verdict, " ", (check.name, "bold"), f": {check.text}"), indent=9)
        out.print(_conclusion(verification))
    return 0 if verification.proved else 1


def _standalone(problem: str, allocation: Path, checker: Path) -> int:
    """Write the checker, and a problem of the gallery beside it, and run it where it sees no package."""
    if sys.version_info < (3, 11):
        raise OptionError("needs Python 3.11 to run", where="--standalone", value=sys.version.split()[0])
    load_allocation(allocation, find_problem(problem))  # what cannot be read is told in a sentence first
    file = Path(problem)
    if problem in problems.names():
        file = checker.parent / f"{problem}.toml"
        save_problem(problems.load(problem), file)
        say(f"written to {file}")
    from impq_opt.judge import standalone

    atomic_write(checker, Path(standalone.__file__).read_bytes())
    say(f"written to {checker}")
    # -I: neither the environment nor the working folder has a say in what is imported.
    done = subprocess.run(
        [sys.executable, "-I", checker, file, allocation], capture_output=True, text=True, check=False
    )
    out = console()
    for line in done.stdout.splitlines():
        out.print(line)
    if done.stderr:
        fault = "the checker ended in a fault of its own; nothing is checked"
        say(fault if "Traceback" in done.stderr else done.stderr.strip().splitlines()[-1])
    return 0 if done.returncode == 0 else 1


def _conclusion(verification: Verification) -> str:
    if not verification.ok:
        return "This allocation is not what it says."
    return (
        "Everything it states is proved here."
        if verification.proved
        else "Nothing is wrong; not everything is proved here."
    )


def _record(verification: Verification) -> dict[str, object]:
    lower = verification.lower_bound
    return {
        "ok": verification.ok,
        "proved": verification.proved,
        "lower_bound": None if lower == float("-inf") else number(lower),
        "checks": [{"name": c.name, "verdict": c.verdict.value, "text": c.text} for c in verification.checks],
    }
