"""Shifts of the mean that rounding makes, taken back where a number is added to each output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.calibrate.graphs import held
from impq_opt.calibrate.layers import Layer, Walk, layers_of
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.work import Work

__all__ = ["Bias"]


@dataclass(frozen=True)
class Bias(Calibration):
    """Give each output of a quantized layer the mean that it has in the float network, layer after layer.

    A layer is held against the float network's when those in front of it are corrected. The shift goes into its bias.
    Where batch-norms read it, their running means follow: what they give has the float network's mean then, also where
    their statistics were estimated again.
    """

    name = "bias"
    summary = "the mean of each output shifted to the float network's"
    source = "Nagel et al., Data-free quantization through weight equalization and bias correction (ICCV 2019)"

    def apply(self, work: Work) -> Change:
        layers, left = layers_of(work.quantized, work.float)
        rows = work.fitting(networks=2)
        rounded = Walk(work.quantized, work.batches(self.name, samples=rows, passes=2, done=1))
        means = self._means(work, layers, rows)
        changed = []
        for layer in layers:
            got = rounded.through(layer.use.node)
            mean, now = means[layer.use.node], _mean(layer, got)
            if layer.bias is not None and not layer.alone:
                layer.bias.add_((mean - now).to(layer.bias.dtype))
                shift = (mean - now).to(got[0].dtype)
                for output in got:  # what goes on
                    output.add_(shift.reshape(-1, *[1] * (layer.use.dimensions)) if layer.use.dimensions else shift)
                now = mean
            elif not layer.norms:
                left.add("no bias of its own and no batch-norm behind it, to take up a shift", layer.name)
                continue
            self._norms(work, layer, mean, now)
            changed.append(layer.name)
        return Change(tuple(changed), (*left.notes(), *work.told(rows)))

    def _means(self, work: Work, layers: Iterable[Layer], rows: int) -> dict[str, Tensor]:
        """Return the mean of each output (out,) that the float network's layers give, by their calls."""
        means: dict[str, Tensor] = work.reference.known(f"{self.name} {rows}", dict)
        missing = [layer for layer in layers if layer.use.node not in means]
        if missing:
            walk = Walk(work.float.copy().eval(), work.batches(self.name, samples=rows, passes=2))
            means |= {layer.use.node: _mean(layer, walk.through(layer.use.node)) for layer in missing}
        return means

    def _norms(self, work: Work, layer: Layer, mean: Tensor, now: Tensor) -> None:
        """Let the batch-norms behind a layer give the means that the float network's give."""
        for node, norm in layer.norms.items():
            own = work.float.nodes[node].args[3:5]
            before, variance = (held(work.float.module, argument) for argument in own)
            assert before is not None and variance is not None
            stretch = ((norm.variance.double() + norm.epsilon) / (variance.double() + norm.epsilon)).sqrt()
            norm.mean.copy_(now - (mean - before.double()) * stretch)


def _mean(layer: Layer, outputs: Iterable[Tensor]) -> Tensor:
    """Return the mean of each output channel (out,), float64."""
    total, count = torch.zeros(()), 0
    for output in outputs:
        channels = layer.channels(output)
        total = total.to(channels.device) + channels.sum(1, dtype=torch.float64)
        count += channels.shape[1]
    return total / count
