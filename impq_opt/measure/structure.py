"""A network's problem without measurements: groups, sizes, and who reads what, for costs alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from impq_opt.data import Dataset
from impq_opt.groups.damage import PowerLaw
from impq_opt.measure.api import survey_of
from impq_opt.measure.assemble import assemble
from impq_opt.measure.grouping import Grouping
from impq_opt.problem.problem import Problem

__all__ = ["structure"]


def structure(
    network: nn.Module,
    shape: Sequence[int],
    *,
    groups: str | Grouping = "layer",
    bits: Sequence[float] = range(1, 17),
    residual: str = "accumulate",
) -> Problem:
    """Return the problem of ``network`` for one input of ``shape`` (channels, ...); its damages are all zero.

    Sums of residual branches are kept at the accumulator's precision unless told otherwise, as in the IMPQ paper.
    """
    generator = torch.Generator().manual_seed(0)
    image = Dataset(torch.randn(2, *shape, generator=generator), name="random")
    survey = survey_of(network, image, groups=groups, bits=bits, residual=residual)
    nothing = PowerLaw(np.zeros(len(survey)))
    return assemble(
        survey,
        nothing,
        metric="none",
        unit="nothing",
        provenance={"source": "structure only", "input": survey.network.module.takes},
    )
