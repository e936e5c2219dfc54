"""The mismatch bound of IMPQ, and Sakr et al.'s tighter constant."""

from __future__ import annotations

import numpy as np

from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import as_rounded, error_columns
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["Impq", "Sakr"]


class Impq:
    """Damage ``4^-B E`` of the IMPQ slides.

    ``E = range^2 / 12 mean_x sum_i sum_h |d(Z_i - Z_y)/dh|^2 / (Z_i - Z_y)^2``: a union bound over classes of
    Chebyshev's inequality for uniform rounding noise of variance ``step^2 / 12``. Groups whose rounding errors are no
    such noise (see :mod:`impq_opt.measure.premise`) have the second moment of what these errors do to the margins in
    its place: Markov's inequality needs no more.
    """

    unit = "mismatch probability bound"
    labels = False
    margins = True
    squared_range = True
    noise = True
    constant = 12.0

    def columns(self, survey: Survey) -> int:
        return 1 + 2 * len(survey.bits) * bool(survey.unlike_noise)

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        squares = survey.squares(part)
        white = survey.fold(squares) / self.constant
        return np.concatenate([white, error_columns(survey, squares)], axis=1) if survey.unlike_noise else white

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> PowerLaw | DamageTable:
        white = PowerLaw(mean[:, 0].copy(), stderr[:, 0].copy())
        return as_rounded(survey, white, mean[:, 1:], stderr[:, 1:], share=12 / self.constant)


class Sakr(Impq):
    """As :class:`Impq` with 24 for 12: symmetric noise crosses a margin on one side only (Sakr et al. 2017)."""

    constant = 24.0
