"""Allocation alternated with retraining.

What needs torch is loaded when it is asked for: policies and records do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from impq_opt.rounds.policy import Choice, Policy, Turn
from impq_opt.rounds.record import Record, read_records
from impq_opt.rounds.schedule import Schedule, parse_schedule

if TYPE_CHECKING:
    from impq_opt.rounds.loop import Measure, Splits, rounds
    from impq_opt.rounds.settings import Hyper, Measuring, Plan, Quantizing, Settings
    from impq_opt.rounds.watch import PausedError, Report
    from impq_opt.training import Training, accuracy
    from impq_opt.training import train as fine_tune

__all__ = [
    "Choice",
    "Hyper",
    "Measure",
    "Measuring",
    "PausedError",
    "Plan",
    "Policy",
    "Quantizing",
    "Record",
    "Report",
    "Schedule",
    "Settings",
    "Splits",
    "Training",
    "Turn",
    "accuracy",
    "fine_tune",
    "parse_schedule",
    "read_records",
    "rounds",
]

_LATER = {
    "Hyper": "impq_opt.rounds.settings:Hyper",
    "Measure": "impq_opt.rounds.loop:Measure",
    "Measuring": "impq_opt.rounds.settings:Measuring",
    "PausedError": "impq_opt.rounds.watch:PausedError",
    "Plan": "impq_opt.rounds.settings:Plan",
    "Quantizing": "impq_opt.rounds.settings:Quantizing",
    "Report": "impq_opt.rounds.watch:Report",
    "Settings": "impq_opt.rounds.settings:Settings",
    "Splits": "impq_opt.rounds.loop:Splits",
    "Training": "impq_opt.training:Training",
    "accuracy": "impq_opt.training:accuracy",
    "fine_tune": "impq_opt.training:train",
    "rounds": "impq_opt.rounds.loop:rounds",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LATER[name].partition(":")
    return getattr(import_module(module), attribute)
