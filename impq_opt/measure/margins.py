"""Margins of logits, and the random combinations of them whose squared gradients add up to E.

A combination is a matrix of coefficients A (n, classes): the scalar ``sum(A * Z)`` is propagated back. Row x of ``A``
holds ``v_i / (Z_y - Z_i)`` for the classes i that count, and minus their sum at the predicted class y, so that it
stands for ``sum_i v_i (Z_i - Z_y) / |Z_i - Z_y|`` with margins held fixed (IMPQ slides; science in the README).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.errors import DataError

__all__ = ["Margins", "check_logits", "margins", "one_by_one", "random_signs", "signs", "top"]


@dataclass(frozen=True)
class Margins:
    """Predicted class (n,), inverse margins (n, classes), zero at the predicted class, and how many were ties.

    A tie, ``Z_i = Z_y`` exactly, has no inverse: whatever the precision, any rounding decides it. Ties are left out
    of E and counted.
    """

    predicted: Tensor
    inverse: Tensor
    ties: int

    def combine(self, signs: Tensor) -> Tensor:
        """Return the coefficients (n, classes) for factors ``signs`` (n, classes)."""
        coefficients = signs * self.inverse
        coefficients.scatter_(1, self.predicted[:, None], -coefficients.sum(1, keepdim=True))
        return coefficients


def margins(logits: Tensor) -> Margins:
    """Return the margins of logits (n, classes).

    A class whose logit is minus infinity is masked: nothing decides for it, and its inverse margin is 0.

    Raises
    ------
    DataError
        A logit is not a number, or all classes of a sample are masked.
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    check_logits(logits)
    best, predicted = logits.max(1)
    gap = best[:, None] - logits
    others = torch.ones_like(gap, dtype=torch.bool).scatter_(1, predicted[:, None], False)
    tied = others & (gap == 0)
    inverse = torch.where(others & ~tied, 1 / gap, torch.zeros(()))
    return Margins(predicted, inverse, int(tied.sum()))


def check_logits(logits: Tensor) -> None:
    """Raise DataError unless logits (n, classes) are finite, or minus infinity at some of the classes of a sample."""
    wrong = ~(torch.isfinite(logits) | logits.isneginf()) | logits.isneginf().all(1, keepdim=True)
    if bool(wrong.any()):
        row = int(wrong.any(1).nonzero()[0])
        raise DataError(
            "the network's logits must be finite",
            where=f"network: sample {row} of a batch",
            value=[float(z) for z in logits[row, :4]],
            hint="check the weights and the scaling of the inputs",
        )


def random_signs(gaps: Margins, generator: torch.Generator) -> Tensor:
    """Return coefficients of the smallest margin of every sample alone, or of all its others with random signs.

    Which of the two is drawn with chances in proportion to ``1 / margin^2``, and weighed by their inverse. Where one
    margin is far smaller than the others, as in the samples that E consists of, this leaves out the products between
    it and them, most of what signs at all margins vary by. (Drawing one margin always varies as little, but leaves
    kernels of the last layer, which one class alone reads, without any value where there are a thousand of them.)
    """
    squares = gaps.inverse.square()
    smallest = gaps.inverse.argmax(1, keepdim=True)
    share = squares.gather(1, smallest) / squares.sum(1, keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)
    alone = torch.rand(share.shape, generator=generator).to(share.device) < share
    drawn = signs(squares.shape, generator).to(share.device)
    first = torch.zeros_like(squares).scatter_(1, smallest, 1.0)
    return gaps.combine(torch.where(alone, first * share.rsqrt(), drawn * (1 - first) * (1 - share).rsqrt()))


def signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return random signs, int8."""
    return torch.randint(0, 2, tuple(shape), generator=generator, dtype=torch.int8) * 2 - 1


def one_by_one(gaps: Margins) -> Iterator[Tensor]:
    """Yield coefficients for one margin of every sample at a time, until each other class had its turn."""
    yield from top(gaps, gaps.inverse.shape[1] - 1)


def top(gaps: Margins, count: int) -> Iterator[Tensor]:
    """Yield coefficients for the smallest margin of every sample, then the next, up to ``count``."""
    # Ties and the winner have inverse 0 and come last.
    order = gaps.inverse.argsort(dim=1, descending=True, stable=True)
    for place in range(min(count, gaps.inverse.shape[1] - 1)):
        chosen = torch.zeros_like(gaps.inverse).scatter_(1, order[:, place : place + 1], 1.0)
        if bool((chosen * gaps.inverse).any()):
            yield gaps.combine(chosen)
