"""Samples that hold several decisions, such as the next token at each place of a text.

Their logits are ``(n, decisions, classes)``, and are passed on as ``(n * decisions, classes)``: what looks at logits
need not know. A sample counts as the mean over its decisions, and stays what is independent of others: standard errors
are over samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from impq_opt.errors import DataError

__all__ = ["IGNORED", "by_decision", "counted", "shares"]

IGNORED = -100  # label of a decision that does not count, as torch's losses have it


def shares(weights: Tensor, labels: Tensor | None, decisions: int) -> Tensor:
    """Return the weights (n, decisions) of decisions: those (n,) of samples, in equal parts among those that count.

    Parameters
    ----------
    weights : Tensor (n,)
    labels : Tensor (n, decisions), optional
        Those that are :data:`IGNORED` do not count; all do unless labels are given.
    decisions : int

    Raises
    ------
    DataError
        Not one label a decision.
    """
    if labels is None or decisions == 1:
        return (weights / decisions)[:, None].expand(-1, decisions)
    some = counted(labels, decisions).to(weights)
    return weights[:, None] * some / some.sum(1, keepdim=True).clamp_min(1)


def counted(labels: Tensor, decisions: int) -> Tensor:
    """Return which decisions (n, decisions) count, bool.

    Raises
    ------
    DataError
        Not one label a decision.
    """
    if labels.numel() != len(labels) * decisions:
        raise DataError(
            f"must have a label for each of the {decisions} decisions of a sample", where="labels",
            value=tuple(labels.shape), hint=f"(samples, {decisions}), {IGNORED} where a decision does not count",
        )  # fmt: skip
    return labels.reshape(len(labels), decisions) != IGNORED


def by_decision(labels: Tensor | None, weights: Tensor, decisions: int) -> tuple[Tensor | None, Tensor]:
    """Return labels and weights (n * decisions,) of decisions, from labels (n, decisions) and weights (n,) of samples.

    What does not count has weight 0, and a label that can be looked up.

    Raises
    ------
    DataError
        Not one label a decision.
    """
    parts = shares(weights, labels, decisions).reshape(-1)
    if labels is None:
        return None, parts
    flat = labels.reshape(-1)
    return torch.where(flat == IGNORED, 0, flat) if decisions > 1 else flat, parts
