"""Two networks on the same samples: how much oftener one is right, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """Of two shares over the same samples.

    Parameters
    ----------
    gained, lost : int
        Samples that only the first network has right, and that only the second has.
    samples : int
    """

    gained: int
    lost: int
    samples: int

    @property
    def value(self) -> float:
        """The share of the first less that of the second."""
        return (self.gained - self.lost) / self.samples

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval that covers the true difference with so much confidence, half of the rest on each side.

        That of paired samples with half a sample added to each of the four counts (Agresti and Min, Statistics in
        Medicine 24, 2005), which covers it at small counts too.
        """
        width = float(norm.ppf(0.5 + confidence / 2)) * self._error(self.samples)
        return self._middle - width, self._middle + width

    def highest(self, confidence: float) -> float:
        """Return what the true difference is not above, with so much confidence."""
        return self._middle + float(norm.ppf(confidence)) * self._error(self.samples)

    def samples_for(self, limit: float, confidence: float) -> int | None:
        """Return how many samples would tell that the difference is not above ``limit``, were it as it was seen.

        None where it was seen to be above.
        """
        if self._middle >= limit:
            return None
        needed = (float(norm.ppf(confidence)) * self._error(1) / (limit - self._middle)) ** 2
        return math.ceil(needed)

    @property
    def _middle(self) -> float:
        return (self.gained - self.lost) / (self.samples + 2)

    def _error(self, samples: int) -> float:
        """Return the standard error of the difference over so many samples."""
        total = self.samples + 2
        variance = (self.gained + self.lost + 1) / total - self._middle**2
        return math.sqrt(variance / (samples + 2 if samples > 1 else 1))


def difference(first: Tensor, second: Tensor) -> Difference:
    """Return how much oftener the first of two networks is right, from what each has right (n,), bool."""
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    return Difference(gained, lost, torch.numel(first))
