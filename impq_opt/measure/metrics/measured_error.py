"""IMPQ's bound with the rounding error as it is, instead of ``step^2 / 12``."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure.estimators import Squares
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import activation_errors, as_rounded, error_columns
from impq_opt.measure.survey import Survey
from impq_opt.types import FloatArray

__all__ = ["MeasuredError"]


class MeasuredError:
    """``sum_h E'_h`` times the measured mean squared rounding error of each output kernel or activation.

    At 3 bits and fewer rounding errors are neither uniform nor of variance ``step^2 / 12``; here they are what they
    are. E' is the sum of squared gradients over squared margins without range and without 1/12.
    """

    unit = "mismatch probability bound"
    labels = False
    margins = True
    noise = True

    def columns(self, survey: Survey) -> int:
        # One for the gradients of activations, whose errors are means of their own.
        return len(survey.bits) + 1 + 2 * len(survey.bits) * bool(survey.unlike_noise)

    def squares(self, survey: Survey, part: Chunk) -> Squares:
        """Return the squared gradients that squared errors are multiplied by, summed over samples."""
        return survey.squares(part)

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        squares = self.squares(survey, part)
        table = survey.fold(
            squares,
            weight=lambda site: functional.pad(survey.kernel_errors[site.name], (0, 1)),  # nothing in the last column
            activation=lambda site: [0.0] * len(survey.bits) + [1.0],
        )
        if not survey.weights_only:
            with torch.no_grad():
                _, errors = activation_errors(survey, part.x, part.weights)
            for row, site in enumerate(survey.network.activations, survey.weight_groups):
                table[row, :-1] = errors[site.name]
        return np.concatenate([table, error_columns(survey, squares)], axis=1) if survey.unlike_noise else table

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> PowerLaw | DamageTable:
        split = len(survey.bits) + 1
        law = error_law(survey, mean[:, :split], stderr[:, :split])
        return as_rounded(survey, law, mean[:, split:], stderr[:, split:])


def error_law(survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
    """Return weights' damages as measured, and activations' as the product of their error and the last column."""
    values, errors = mean[:, :-1].copy(), stderr[:, :-1].copy()
    some = slice(survey.weight_groups, None)
    with np.errstate(invalid="ignore"):
        errors[some] = np.hypot(errors[some] * mean[some, -1:], values[some] * stderr[some, -1:])
    values[some] *= mean[some, -1:]
    return DamageTable(np.maximum(values, 0), errors)
