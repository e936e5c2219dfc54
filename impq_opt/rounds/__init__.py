"""Allocation alternated with retraining."""

from impq_opt.rounds.fit import accuracy, fine_tune
from impq_opt.rounds.loop import Measure, PausedError, Report, Splits, rounds
from impq_opt.rounds.settings import Hyper, Schedule, parse_schedule

__all__ = [
    "Hyper",
    "Measure",
    "PausedError",
    "Report",
    "Schedule",
    "Splits",
    "accuracy",
    "fine_tune",
    "parse_schedule",
    "rounds",
]
