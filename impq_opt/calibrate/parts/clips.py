"""Ranges of activations by squared rounding errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from impq_opt.calibrate.layers import Reasons, Walk
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.work import Work
from impq_opt.errors import OptionError
from impq_opt.quantize.methods.activation import ActivationQuantizer, UniformActivation

__all__ = ["Clips"]

_TAKEN = 1 << 18  # values of an activation that its errors are summed over


@dataclass(frozen=True)
class Clips(Calibration):
    """Give each quantizer of activations the range at which its squared errors are least, call after call.

    What a quantizer reads is what it reads in the quantized network, with all ranges in front as they are chosen.
    Tried are the range as it is and ``places`` equal parts of what holds every value that was seen.

    Parameters
    ----------
    places : int
    """

    name = "clips"
    summary = "ranges of activations at which squared errors are least"
    source = "Choukroun et al., Low-bit quantization for efficient inference (ICCV workshops 2019)"

    places: int = 64

    def __post_init__(self) -> None:
        if self.places < 2:
            raise OptionError("must be at least 2", where="clips.places", value=self.places)

    def apply(self, work: Work) -> Change:
        quantizers: dict[str, ActivationQuantizer] = {}
        for node in work.quantized.traced_graph.nodes:
            called = work.quantized.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(called, ActivationQuantizer):
                quantizers[node.name] = called
        if not quantizers:
            return Change(notes=("no activation is quantized",))
        rows, left, changed = work.fitting(), Reasons(), []
        walk = Walk(work.quantized, work.batches(self.name, samples=rows))
        for name, quantizer in quantizers.items():
            if not isinstance(quantizer, UniformActivation):
                left.add(f"rounded by {quantizer.method}, which has a range of its own", quantizer.label)
                continue
            values = _taken(walk.to(name))
            span = self._least(quantizer, values)
            if span != quantizer.span:
                quantizer.stretch(span)
                changed.append(quantizer.label)
        none = () if changed or left.notes() else ("all ranges are at the least error already",)
        return Change(tuple(changed), (*left.notes(), *none, *work.told(rows)))

    def _least(self, quantizer: UniformActivation, values: Tensor) -> float:
        """Return the span of least squared error, that of the quantizer where no other has less."""
        longest = float(values.abs().max()) * (2 if quantizer.signed else 1)
        spans = [quantizer.span, *(longest * place / self.places for place in range(1, self.places + 1))]
        tried = UniformActivation(quantizer.bits, quantizer.span, signed=quantizer.signed)
        best, least = quantizer.span, float("inf")
        for span in spans:
            if span > 0:
                tried.stretch(span)
                error = float((tried(values) - values).double().square().sum())
                best, least = (span, error) if error < least else (best, least)
        return best


def _taken(batches: Iterable[Tensor]) -> Tensor:
    """Return some values of an activation, evenly from all there are, in float32 or float64."""
    parts = [batch.flatten() for batch in batches]
    stride = max(1, sum(len(part) for part in parts) // _TAKEN)
    values = torch.cat([part[::stride] for part in parts])
    return values.to(torch.promote_types(values.dtype, torch.float32))
