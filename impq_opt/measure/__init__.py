"""Measuring how sensitive a trained network's decisions are to the precision of its parts. Needs torch."""

from impq_opt.measure.api import measure, measure_each, structure_of, survey_of
from impq_opt.measure.estimators import ESTIMATORS, Estimator
from impq_opt.measure.grouping import GROUPINGS, Grouping
from impq_opt.measure.metrics import METRICS
from impq_opt.measure.replicates import Sampling
from impq_opt.tracing.graph import Network
from impq_opt.tracing.trace import trace

__all__ = [
    "ESTIMATORS",
    "GROUPINGS",
    "METRICS",
    "Estimator",
    "Grouping",
    "Network",
    "Sampling",
    "measure",
    "measure_each",
    "structure_of",
    "survey_of",
    "trace",
]
