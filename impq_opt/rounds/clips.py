"""Clip values of activations that follow their batch-norms while a round trains, and last through a kill."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from impq_opt.quantize import activation_quantizers, clips_by_norms
from impq_opt.training import Course, Hook

__all__ = ["Clips", "restore_spans", "spans_of"]

_PREFIX = "span of "  # no module is called so


class Clips(Hook):
    """Read the clip values from the batch-norms again every so many steps and after each epoch (IMPQ, authors' code).

    Parameters
    ----------
    every : int
        Steps; 0 leaves the values as they are.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def after_step(self, course: Course) -> None:
        if self.every and course.progress.step % self.every == 0:
            self._read(course.network)

    def after_epoch(self, course: Course) -> None:
        if self.every:
            self._read(course.network)

    def _read(self, network: nn.Module) -> None:
        quantizers = activation_quantizers(network)
        for label, clip in clips_by_norms(network).items():
            quantizers[label].stretch(clip)


def spans_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the spans of a network's activation quantizers, as tensors for a checkpoint."""
    return {
        _PREFIX + label: torch.tensor(quantizer.span, dtype=torch.float64)
        for label, quantizer in activation_quantizers(network).items()
    }


def restore_spans(network: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give the quantizers the spans that are kept of them; others stay as they are."""
    for label, quantizer in activation_quantizers(network).items():
        if _PREFIX + label in kept:
            quantizer.stretch(float(kept[_PREFIX + label]))
