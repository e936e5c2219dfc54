"""Metrics: each fills a damage table, in a named unit, from chunks of samples.

A new metric is a class with the members of :class:`Metric` and one entry in ``METRICS``, or in the entry-point group
``impq_opt.metrics`` of another package.
"""

from __future__ import annotations

from typing import Protocol

from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.registry import Registry
from impq_opt.types import FloatArray

__all__ = ["METRICS", "Metric", "load_metric"]


class Metric(Protocol):
    """What the measuring loop asks of a metric.

    Attributes
    ----------
    unit : str
        Of the damage.
    labels : bool
        Whether samples need labels.
    margins : bool
        Whether it adds up squared gradients of margins: then samples are drawn by their margins, and those with the
        smallest can be conceded. Otherwise all samples count alike.
    squared_range : bool
        May be left out, which is False. Whether damages depend on weights through gradients and the square of their
        range alone: then rounds can measure at weights that are quantized already.

    states : bool
        May be left out, which is False. Whether it has a meaning of states, as an encoder gives them, that decide
        nothing.

    A metric whose damages rest on rounding errors being noise, but for those of ``survey.unlike_noise``, says so by a
    true attribute ``noise``; what was seen of them is stored with the problem then. One that has more to tell of the
    mean (G, C) has a method ``record(survey, mean)``, whose entries go into the problem's provenance, and one that
    measures what groups do together has ``together(survey, mean, stderr)``, which returns factors or None.
    """

    unit: str
    labels: bool
    margins: bool

    def columns(self, survey: Survey) -> int:
        """Return C, the numbers that each chunk tells of a group."""
        ...

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        """Return the weighted sum over one chunk of what samples say of every group, (G, C)."""
        ...

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> PowerLaw | DamageTable:
        """Turn the mean (G, C) and its standard error into damages."""
        ...


METRICS: dict[str, str] = {
    "impq": "impq_opt.measure.metrics.impq:Impq",  # 4^-B E, E with 1/12 (IMPQ slides)
    "sakr": "impq_opt.measure.metrics.impq:Sakr",  # 4^-B E, E with 1/24 (Sakr et al. 2017)
    "impq-code": "impq_opt.measure.metrics.impq_code:ImpqCode",  # first power of the step (IMPQ authors' code)
    "gaussian": "impq_opt.measure.metrics.gaussian:Gaussian",  # linearised Gaussian tail of every margin
    "measured-error": "impq_opt.measure.metrics.measured_error:MeasuredError",  # E times the rounding error as measured
    "hawq": "impq_opt.measure.metrics.hawq:Hawq",  # mean Hessian trace times squared rounding error (HAWQ-V2)
    "fisher": "impq_opt.measure.metrics.fisher:Fisher",  # rounding errors in the Fisher information: KL to second order
    "fit": "impq_opt.measure.metrics.fit:Fit",  # empirical Fisher trace times squared step (FIT)
    "kl": "impq_opt.measure.metrics.kl:Kl",  # divergence of the decisions with one group quantized
    "output-error": "impq_opt.measure.metrics.output_error:OutputError",  # squared shift of the logits, likewise
    "loss-delta": "impq_opt.measure.metrics.loss_delta:LossDelta",  # rise of the loss, likewise
}

# Returns a new instance of a metric, options behind a colon: ``kl:after=statistics``; raises OptionError with near
# matches.
load_metric = Registry[Metric]("metric", METRICS, "impq_opt.metrics").read
