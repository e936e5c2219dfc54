"""Allocation alternated with retraining."""

from impq_opt.rounds.hyper import Hyper, Schedule, parse_schedule
from impq_opt.rounds.loop import Measure, PausedError, Report, Splits, rounds
from impq_opt.rounds.training import accuracy, fine_tune

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
