"""Two or three levels that weights are frozen to in stages, while the change of the loss is made small."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError
from impq_opt.quantize.methods.base import Moment, QuantizedWeight
from impq_opt.quantize.methods.basis import Basis
from impq_opt.quantize.methods.codebook import CodebookQuantizer, StartedQuantizer
from impq_opt.training import Batch, Objective, Scored

__all__ = ["ELQ"]


@dataclass(frozen=True)
class ELQ(Basis):
    """Levels {-a, a} at one bit, {-a, 0, a} at two, to which weights are frozen in stages.

    Training makes L(W^) + gap |L(W) - L(W^)| + pull ||W - W^||^2 small, L the loss and W^ the rounded weights. Levels
    are those of least squared error when training begins, each weight taking the nearest, and stay. In stage j of S,
    j/S of the weights are frozen at their levels, those that were nearest to them when their stage began; the others
    have a straight-through gradient. ``gap`` costs a second pass, with the latent weights, the same random numbers and
    batch statistics of its own, which are not kept.

    How large a, gap and pull are, which weights a stage freezes and how many are choices made here; hence "after".

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share a.
    gap, pull : float
        Weights of the terms, at least 0.
    stages : int
        Of equal length; in the first nothing is frozen.
    """

    name = "elq"
    summary = "{-a, a} or {-a, 0, a}, with a of least squared error for a layer"
    source = "after ELQ (Zhou, Yao, Wang and Chen, CVPR 2018)"
    training = "frozen in stages, terms in the loss"
    widths = (1, 2)

    gap: float = 0.1
    pull: float = 1e-4
    stages: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("gap", "pull"):
            value = getattr(self, option)
            if not (math.isfinite(value) and value >= 0):
                raise OptionError("must be finite and at least 0", where=f"elq.{option}", value=value)
        if self.stages < 1:
            raise OptionError("must be at least 1", where="elq.stages", value=self.stages)

    def levels(self, bits: int) -> int:
        return bits + 1

    def factors(self, bits: int) -> Tensor:
        return torch.tensor([[-1.0], [1.0]] if bits == 1 else [[-1.0], [0.0], [1.0]])

    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        mean = values.abs().mean(1, keepdim=True)
        return [mean, 1.5 * mean]

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return _Incremental(shape, bits, sizes, self)

    def objective(self, objective: Objective, network: nn.Module, weights: Mapping[str, QuantizedWeight]) -> Objective:
        plain, own = network, tuple(weights.values())
        devices = {weight.latent.device for weight in own if weight.latent.device.type != "cpu"}

        def explicit(network: Callable[..., Any], batch: Batch) -> Scored:
            with torch.random.fork_rng(list(devices)):
                scored = objective(network, batch)
            loss = scored.loss
            if self.gap:
                loss = loss + self.gap * (_in_float(objective, plain, own, batch) - scored.loss).abs()
            if self.pull:
                loss = loss + self.pull * torch.stack([(w.latent - w.value).square().sum() for w in own]).sum()
            return scored._replace(loss=loss)

        return explicit


def _in_float(objective: Objective, network: nn.Module, weights: tuple[QuantizedWeight, ...], batch: Batch) -> Tensor:
    """Return the loss with the latent weights; buffers, such as batch statistics, stay as they are."""
    passing = [weight.quantizer.register_forward_hook(lambda _module, inputs, _out: inputs[0]) for weight in weights]
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        return objective(network, batch).loss
    finally:
        for hook in passing:
            hook.remove()
        for buffer, kept in before:
            buffer.data.copy_(kept)  # unseen by autograd, which holds running statistics that it does not use


class _Incremental(StartedQuantizer):
    method: ELQ
    columns = 1
    fixed: Tensor

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: ELQ
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        self.register_buffer("fixed", torch.zeros(self.shape, dtype=torch.bool))

    def frozen(self, weight: Tensor) -> Tensor:
        return self.fixed

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        super().before_step(weight, moment)
        stages = self.method.stages
        more = weight.numel() * int(moment.share * stages) // stages - int(self.fixed.sum())
        if more > 0:
            rounded = self.rounded(weight)
            errors = (rounded - weight).abs().masked_fill(self.fixed, torch.inf).flatten()
            nearest = errors.argsort(stable=True)[:more]
            self.fixed |= torch.zeros_like(errors, dtype=torch.bool).index_fill_(0, nearest, True).reshape(self.shape)
            weight.copy_(torch.where(self.fixed, rounded, weight))
