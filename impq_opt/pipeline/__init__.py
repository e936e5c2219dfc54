"""From a trained network to a quantized one of a given size, or within a given loss of accuracy, in one call."""

from impq_opt.pipeline.plan import Plan
from impq_opt.pipeline.record import Judged, Outcome
from impq_opt.pipeline.run import quantize_network

__all__ = ["Judged", "Outcome", "Plan", "quantize_network"]
