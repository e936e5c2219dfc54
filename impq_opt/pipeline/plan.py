"""What is asked of a network, and how it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from impq_opt.calibrate import STEPS, load_calibration
from impq_opt.costs import parse_quantity
from impq_opt.errors import OptionError
from impq_opt.exchange import writer_of
from impq_opt.measure import Grouping
from impq_opt.measure.metrics import load_metric
from impq_opt.quantize import load_method

__all__ = ["Plan"]

GRID = "mid-rise:one_bit=mean"
CANDIDATES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


@dataclass(frozen=True)
class Plan:
    """One goal, and the choices on the way to it. Exactly one of the first four is given.

    Parameters
    ----------
    budget : str, optional
        Largest size of the packed file, such as ``"100KiB"``: codes, scales, what stays in float and header.
    bits : float, optional
        Largest mean precision of the quantized weights, in bits; scales and what stays in float come on top.
    accuracy_loss : float, optional
        Largest fall of the accuracy that is accepted, as a share: 0.005 is half a point.
    bound : float, optional
        Largest mismatch bound p_m.
    limits : mapping of str to str
        Largest costs besides, by name, such as ``{"bit-operations": "2G"}``.
    activation_bits : float, optional
        Precision of every activation; unless given they stay in float.
    groups, metric, grid : str
        As :func:`impq_opt.measure.measure` takes them. The metric prices what the grid does to the network. Where the
        last two are empty they are the usual ones.
    target : str, optional
        Tool that the network is meant for, such as ``"torchao:group_size=32"``: its grid and its precisions are taken,
        sizes are what it stores, and its configuration is written too.
    interactions : bool
        Measure and allocate by what pairs of layers do together as well; with a metric that can, ``kl``.
    candidates : tuple of float
        Precisions that weights may take; 1 to 8 bits, or what the target has, where empty.
    calibration : tuple of str
        Parts of :mod:`impq_opt.calibrate`, in the order in which they are done; none where empty.
    without : tuple of str
        Names of parameters that are left alone, such as those of embeddings.
    samples : int
        How many samples are measured and calibrated on.
    seed : int
        Of their draw.
    confidence : float
        Of intervals, and of what is said about a loss of accuracy.
    """

    budget: str | None = None
    bits: float | None = None
    accuracy_loss: float | None = None
    bound: float | None = None
    limits: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    activation_bits: float | None = None
    groups: str = "layer"
    metric: str = ""
    interactions: bool = False
    grid: str = ""
    candidates: tuple[float, ...] = ()
    target: str = ""
    calibration: tuple[str, ...] = STEPS
    without: tuple[str, ...] = ()
    samples: int = 512
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        goals = {name: getattr(self, name) for name in ("budget", "bits", "accuracy_loss", "bound")}
        given = [name for name, value in goals.items() if value is not None]
        if len(given) != 1:
            raise OptionError(
                "give one goal", where="quantize", value=" and ".join(given) or "none",
                hint="a budget, bits, an accuracy loss or a bound",
            )  # fmt: skip
        _check(self.bits, "bits", 0, math.inf)
        _check(self.accuracy_loss, "accuracy_loss", 0, 1)
        _check(self.bound, "bound", 0, math.inf)
        _check(self.confidence, "confidence", 0, 1)
        if not self.metric:
            # The bound is one on the mismatch, which is what ``impq`` measures.
            object.__setattr__(self, "metric", "impq" if self.bound is not None else default_metric(self.groups))
        grid, candidates = self._of_target() if self.target else (GRID, CANDIDATES)
        object.__setattr__(self, "grid", self.grid or grid)
        object.__setattr__(self, "candidates", self.candidates or candidates)
        if self.interactions and not hasattr(load_metric(self.metric), "interactions"):
            raise OptionError("are measured by kl and fisher", where="interactions", value=self.metric)
        if self.budget is not None:
            parse_quantity(self.budget, "bit", "budget", weights=1)
        load_metric(self.metric)
        load_method(self.grid)
        Grouping.read(self.groups)
        for step in self.calibration:
            load_calibration(step)
        if self.samples < 1:
            raise OptionError("must be at least 1", where="samples", value=self.samples)

    def _of_target(self) -> tuple[str, tuple[float, ...]]:
        """Return the grid and the precisions of the target."""
        for name, value in (("grid", self.grid), ("activation_bits", self.activation_bits)):
            if value not in ("", None):
                raise OptionError(f"goes without a target, and {self.target} was named", where=name, value=value)
        return writer_of(self.target).measured(self.groups, self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        plain = {part.name: getattr(self, part.name) for part in fields(self)}
        return plain | {"limits": dict(self.limits)}


def default_metric(groups: str) -> str:
    """Return what prices layers, of which a pass each can be afforded, and what prices kernels by the thousand."""
    return "kl" if groups == "layer" else "measured-error"


def _check(value: float | None, where: str, low: float, high: float) -> None:
    if value is not None and not low < value < high:
        limits = f"between {low:g} and {high:g}" if high < math.inf else f"above {low:g}"
        raise OptionError(f"must be {limits}", where=where, value=value)
