"""impq-opt: decide how many bits each part of a network gets, and prove that the decision is optimal."""

from __future__ import annotations

from impq_opt import _start as _start  # for Ctrl-C while the rest is loaded

# isort: split
import importlib
from types import ModuleType

from impq_opt.errors import ImpqError
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Factors, Pairs
from impq_opt.groups.names import GroupNames
from impq_opt.insight.frontier import Frontier, frontier
from impq_opt.instance.contract import Claim, Control, Solver
from impq_opt.judge.checks import Check, Verdict, Verification
from impq_opt.judge.verify import verify
from impq_opt.problem.allocation import Allocation, Certificate, Diagnosis, Enumeration, Status, Stop
from impq_opt.problem.declaration import Group
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Stay
from impq_opt.solve import allocate, solve

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "Candidates",
    "Certificate",
    "Check",
    "Claim",
    "Control",
    "DamageTable",
    "Diagnosis",
    "Enumeration",
    "Factors",
    "Frontier",
    "Group",
    "GroupNames",
    "ImpqError",
    "Pairs",
    "PowerLaw",
    "Problem",
    "Solver",
    "Status",
    "Stay",
    "Stop",
    "Verdict",
    "Verification",
    "allocate",
    "frontier",
    "solve",
    "verify",
]


def __dir__() -> list[str]:
    """Return what is there to use: the stable surface and the two packages that are loaded when asked for."""
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__", "files", "problems"])


def __getattr__(name: str) -> ModuleType:
    """Load ``impq_opt.files`` and ``impq_opt.problems`` when they are first asked for."""
    if name in ("files", "problems"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
