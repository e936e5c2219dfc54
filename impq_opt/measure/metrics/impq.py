"""The mismatch bound of IMPQ, and Sakr et al.'s tighter constant."""

from __future__ import annotations

from impq_opt.groups.damage import PowerLaw
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["Impq", "Sakr"]


class Impq:
    """Damage ``4^-B E`` of the IMPQ slides.

    ``E = range^2 / 12 mean_x sum_i sum_h |d(Z_i - Z_y)/dh|^2 / (Z_i - Z_y)^2``: a union bound over classes of
    Chebyshev's
    inequality for uniform rounding noise of variance ``step^2 / 12``.
    """

    unit = "mismatch probability bound"
    labels = False
    margins = True
    squared_range = True
    constant = 12.0

    def columns(self, survey: Survey) -> int:
        return 1

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        return survey.fold(survey.squares(part.x, part.weights, part.generator)) / self.constant

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> PowerLaw:
        return PowerLaw(mean[:, 0].copy(), stderr[:, 0].copy())


class Sakr(Impq):
    """As :class:`Impq` with 24 for 12: symmetric noise crosses a margin on one side only (Sakr et al. 2017)."""

    constant = 24.0
