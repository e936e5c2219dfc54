"""Rounding of a layer's weights by what the layer gives: moments of what it reads, and the grid of every weight."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from impq_opt.calibrate.layers import Layer, Walk, layers_of
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.work import Work
from impq_opt.quantize.methods.base import exact
from impq_opt.quantize.methods.uniform import WeightQuantizer, inverse
from impq_opt.tracing.sites import Use

__all__ = ["Cells", "Choice", "Rounding", "cells_of", "moments", "patches"]

# Elements of unfolded inputs that are held at a time.
_CHUNK = 1 << 25


@dataclass(frozen=True)
class Rounding(Calibration):
    """Choose the codes of each kernel, layer after layer, on the grid of the float weight, which is held from then on.

    A kernel that comes no closer by what it gives stays as it is.
    """

    networks: ClassVar[int]  # of which inputs are needed: 1, the quantized one; 2, the float one too

    @abstractmethod
    def chosen(self, work: Work, layer: Layer, weight: Tensor, cells: Cells, *reads: Iterable[Tensor]) -> Choice:
        """Return weights that are rounded as chosen, and what tells how far a kernel is off.

        Parameters
        ----------
        work, layer
        weight : Tensor (groups, outputs, length)
            The latent weight.
        cells : Cells
        *reads : iterable of Tensor (n, ...)
            What the layer reads in the quantized network, with all layers in front as they are chosen; and in the float
            one.
        """

    def apply(self, work: Work) -> Change:
        layers, left = layers_of(work.quantized, work.float)
        rows, changed = work.fitting(networks=self.networks), []
        graphs = [work.quantized, *(work.float.copy().eval() for _ in range(1, self.networks))]
        walks = [
            Walk(graph, work.batches(self.name, samples=rows, passes=self.networks, done=done))
            for done, graph in enumerate(graphs)
        ]
        for layer in layers:
            quantizer, latent = layer.weight.quantizer, layer.weight.latent
            if not isinstance(quantizer, WeightQuantizer):
                left.add(f"rounded by {quantizer.method.name}, whose levels cannot be held", layer.name)
                continue
            cells = cells_of(quantizer, latent, layer.use.groups)
            weight = exact(latent.detach()).reshape(cells.step.shape)
            choice = self.chosen(work, layer, weight, cells, *(walk.to(layer.use.node) for walk in walks))
            closer = choice.error(cells.rounded(choice.weight)) < choice.error(cells.rounded(weight))
            if bool(closer.any()):
                quantizer.hold(quantizer.side(latent))
                latent.copy_(torch.where(closer[..., None], choice.weight, weight).reshape(latent.shape))
                changed.append(layer.name)
        none = () if changed or not layers else ("no other kernel comes closer",)
        return Change(tuple(changed), (*left.notes(), *none, *work.told(rows)))


class Choice(NamedTuple):
    """Weights (groups, outputs, length), and a function of rounded weights that tells the error (groups, outputs)."""

    weight: Tensor
    error: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Cells:
    """The grid of every weight of a layer, all as (groups, outputs, length): weights of a group read the same inputs.

    Parameters
    ----------
    step, offset, least, most : Tensor
        A weight w has the code clamp(round(w / step - offset), least, most).
    """

    step: Tensor
    offset: Tensor
    least: Tensor
    most: Tensor

    def rounded(self, weight: Tensor, place: Any = ...) -> Tensor:
        """Return weights at ``place`` of the grid rounded, as the quantizer does it, bit for bit."""
        step, offset = self.step[place], self.offset[place]
        codes = (weight * inverse(step)).sub_(offset).round_()
        codes = codes.clamp_(self.least[place], self.most[place])
        return codes.add_(offset).mul_(step)


def cells_of(quantizer: WeightQuantizer, latent: Tensor, groups: int) -> Cells:
    """Return the grid of every weight, as the quantizer has it for the latent weight."""
    step, offset = quantizer.grid(quantizer.side(latent))

    def spread(part: Tensor | float) -> Tensor:
        whole = torch.as_tensor(part, dtype=step.dtype, device=step.device).expand(quantizer.view)
        return whole.reshape(groups, latent.shape[0] // groups, -1).contiguous()

    return Cells(*(spread(part) for part in (step, offset, quantizer.least, quantizer.most)))


def moments(layer: Layer, reads: Iterable[Tensor], *others: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return the mean of x x^T (groups, length, length), float64, x what the kernels of a layer are multiplied by.

    For a change d (length,) of a kernel, the mean squared change of what it gives is d^T (x x^T) d.

    Parameters
    ----------
    layer : Layer
    reads : iterable of Tensor (n, ...)
        What it reads, batch by batch.
    *others : iterable of Tensor (n, ...)
        What it reads elsewhere, on the same samples: for each the mean of z x^T follows, z of these.
    """
    shape, groups = layer.weight.latent.shape, layer.use.groups
    length = shape[1:].numel()
    zero = torch.zeros(groups, length, length, dtype=torch.float64, device=layer.weight.latent.device)
    totals, count = [zero.clone() for _ in (reads, *others)], 0
    for batch in zip(reads, *others, strict=True):
        each = max(1, _CHUNK // max(1, batch[0][0].numel() * shape[2:].numel()))
        for parts in zip(*(x.split(each) for x in batch), strict=True):
            rows = [patches(part, shape, layer.use) for part in parts]
            products = [(left.mT @ rows[0]).double() for left in rows]  # in float32; sums over chunks in float64
            totals = [total + product for total, product in zip(totals, products, strict=True)]
            count += rows[0].shape[1]
    return tuple(total / max(1, count) for total in totals)


def patches(x: Tensor, shape: torch.Size, use: Use) -> Tensor:
    """Return what the kernels of a layer are multiplied by, (groups, positions, length), in float32 or float64.

    Parameters
    ----------
    x : Tensor (n, ...)
        What the layer reads.
    shape : Size
        Of its weight (out, in / groups, ...).
    use : Use
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if not use.dimensions:
        return x.reshape(1, -1, shape[1])
    x = pad(x, [end for ends in reversed(use.padding) for end in ends])
    spans = [
        (size - dilation * (kernel - 1) - 1) // stride * stride + 1
        for size, kernel, stride, dilation in zip(x.shape[2:], shape[2:], use.stride, use.dilation, strict=True)
    ]
    views = []
    for offsets in itertools.product(*map(range, shape[2:])):
        places = zip(offsets, use.dilation, spans, use.stride, strict=True)
        window: tuple[Any, ...] = (..., *(slice(o * d, o * d + span, stride) for o, d, span, stride in places))
        views.append(x[window].flatten(2))
    taken = torch.stack(views, 2)  # (n, channels, kernel, positions)
    samples, channels, kernel, positions = taken.shape
    taken = taken.reshape(samples, use.groups, channels // use.groups * kernel, positions)
    return taken.permute(1, 0, 3, 2).reshape(use.groups, samples * positions, -1)
