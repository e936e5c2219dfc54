"""Whether the rounding errors of a weight are what the bound takes them for: noise of mean 0 and variance step^2 / 12.

Errors of smooth weights are, from some 4 bits on. They are not where weights repeat a value (pruned ones, constants,
weights that lie on a grid already): equal weights have equal errors, which add up instead of cancelling. That shows in

* the *sum* of a kernel's errors, which is what they do to its output where inputs have one sign: 12 n mean(u)^2, with
  u the errors in steps and n the weights of the kernel, is 1 on average for noise and 3 n for equal errors;
* their product with the weights, which is what they do to the *scale* of the output: 12 (sum u w)^2 / sum w^2;
* their *square*: 12 mean(u^2).

All are means over the kernels of a weight, and looked at where errors of smooth weights are noise, at 4, 6 and 8 bits.
At fewer bits errors of any weights depend on the weights, to a degree that the bound has always passed over. Weights in
half precision are looked at at 4 and 6 bits: at 8 the type's own rounding counts, which can double the squared error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from impq_opt.errors import DataError, OptionError, nearest
from impq_opt.measure.shifts import rounded, whole_below
from impq_opt.quantize.methods import Method, load_method, widths_text

__all__ = ["AUTO", "Premise", "check_candidates", "examine", "grids_of"]

AUTO = "auto"
# A share z of exact zeros, each of which a mid-rise grid moves by +step/2, has in a kernel of n weights up to 3 n z^2
# times the power of noise: as much as the noise at 133 weights. It makes the squared error 1 + 2 z times step^2 / 12,
# where a grid with a zero level has 1 - z times that.
MANY_ZEROS = 0.05
_WIDTHS = (4, 6, 8)
# Far from what smooth weights show: at most 4.0 for the sum, 3.3 for the scale and 0.96 to 1.41 for the square in
# ResNet-20, EfficientNet-Lite0 (float32 and bfloat16) and small networks trained for this; 350 and more, and 2.8, in a
# pruned one.
_COHERENT = 8.0
_SQUARE = 0.5
_SPREAD = 0.9  # standard deviation of 12 u^2 for noise, sqrt(4/5)


@dataclass(frozen=True)
class Premise:
    """What was seen of one weight; numbers are the largest (of the square: the farthest from 1) of the widths.

    Parameters
    ----------
    total, scale, square : float
        How many times the noise's the errors' sum over a kernel, their effect on the scale, and their square are.
    zeros : float
        Share of exact zeros in kernels that are rounded: not in those of zeros alone, with a range of their own.
    slack : float
        How far from 1 the square may be: sample means of few weights scatter.
    uniform : bool
        The grid has steps of one length that halve with each bit.
    """

    total: float = 1.0
    scale: float = 1.0
    square: float = 1.0
    zeros: float = 0.0
    slack: float = _SQUARE
    uniform: bool = True

    @property
    def holds(self) -> bool:
        """Whether errors are as good as noise of variance ``step^2 / 12``."""
        return self.uniform and max(self.total, self.scale) <= _COHERENT and abs(self.square - 1) <= self.slack

    @property
    def reason(self) -> str:
        """Why it does not hold."""
        parts = [] if self.uniform else ["the steps of its grid do not halve with each bit"]
        if self.zeros >= MANY_ZEROS:
            parts.append(f"{self.zeros:.0%} of the weights are exactly 0")
        if self.total > _COHERENT:
            parts.append(f"errors add up in a kernel, to {self.total:.3g} times the power of noise")
        if self.scale > _COHERENT:
            parts.append(f"errors change the scale of a kernel, by {self.scale:.3g} times the power of noise")
        if abs(self.square - 1) > self.slack:
            parts.append(f"squared errors are {self.square:.2g} times step^2/12")
        return "; ".join(parts)


def examine(weight: Tensor, method: Method, stored: torch.dtype | None = None) -> Premise:
    """Look at the errors that ``method`` makes of ``weight`` (out, ...), which the network has in type ``stored``."""
    spans = method.spans(weight)
    kernels = weight.detach().flatten(1)
    # A kernel of zeros has no range of its own, and stays as it is; one that shares the range of others does not.
    alive = kernels.abs().amax(1) > 0 if spans is None else spans > 0
    if spans is None or not bool(alive.any()):
        return Premise(uniform=spans is not None, zeros=_zeros(kernels[alive]))
    values = kernels[alive].double()
    widths = _WIDTHS if stored in (None, torch.float32, torch.float64) else _WIDTHS[:-1]
    units = (_units(weight, method, spans, bits, stored) for bits in widths)
    statistics = [_statistics(values, unit[alive], spans[alive]) for unit in units]
    total, scale, square = (torch.tensor(column) for column in zip(*statistics, strict=True))
    farthest = float(square[(square - 1).abs().argmax()])
    slack = max(_SQUARE, 5 * _SPREAD / values.numel() ** 0.5)
    return Premise(float(total.max()), float(scale.max()), farthest, _zeros(values), slack)


def _units(weight: Tensor, method: Method, spans: Tensor, bits: int, stored: torch.dtype | None) -> Tensor:
    """Return the errors of every kernel in steps (out, n)."""
    value = rounded(weight, method, bits, np.array([weight.numel()]), stored)
    error = (value.double() - weight.detach().double()).flatten(1)
    return error / (spans * 2.0**-bits).clamp_min(torch.finfo(torch.float64).tiny)[:, None]


def _statistics(values: Tensor, units: Tensor, spans: Tensor) -> tuple[float, float, float]:
    count, shape = values.shape[1], values / spans[:, None]  # of one size, so that squares neither over- nor underflow
    total = 12 * count * units.mean(1).square()
    scale = 12 * (units * shape).sum(1).square() / shape.square().sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    return float(total.mean()), float(scale.mean()), 12 * float(units.square().mean())


def _zeros(values: Tensor) -> float:
    return float((values == 0).double().mean()) if values.numel() else 0.0


def grids_of(weights: Mapping[str, Tensor], grid: str | Mapping[str, str]) -> dict[str, Method]:
    """Return the method of each weight, by name.

    Parameters
    ----------
    weights : mapping of str to Tensor
    grid : str or mapping
        ``"auto"``: ``zero`` where more than a twentieth of a weight is exactly 0, kernels that are zero altogether left
        aside, and ``mid-rise`` elsewhere. Else a method for all weights, or for each that is named; those that are not
        are as with ``"auto"``.

    Raises
    ------
    OptionError
        An unknown method.
    DataError
        A name that no weight has.
    """
    named = {} if isinstance(grid, str) else dict(grid)
    for name in named:
        if name not in weights:
            raise DataError("no such weight in the network", where="grid", value=name, hint=nearest(name, weights))
    usual = grid if isinstance(grid, str) else AUTO
    return {name: load_method(_chosen(named.get(name, usual), weight)) for name, weight in weights.items()}


def check_candidates(grids: Mapping[str, Method], bits: Sequence[float]) -> None:
    """Raise OptionError unless these methods say what weights are at each of the candidates ``bits``."""
    for method in set(grids.values()):
        if method.needs_training:
            raise OptionError(
                "is not near the weights of a network that was not trained with it, so no damage can be measured",
                where="grid",
                value=method.name,
                hint="rounds train with it and measure then",
            )
        for width in bits:
            if whole_below(width) not in method.widths:
                raise OptionError(
                    f"{method.name} has {widths_text(method.widths)}",
                    where="bits",
                    value=f"{width:g}",
                    hint=f"such as bits={method.widths[0]}",
                )


def _chosen(grid: str, weight: Tensor) -> str:
    if grid != AUTO:
        return grid
    kernels = weight.detach().flatten(1)
    return "zero" if _zeros(kernels[kernels.abs().amax(1) > 0]) > MANY_ZEROS else "mid-rise"
