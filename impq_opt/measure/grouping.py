"""Which weights share a precision: a layer, an output kernel, a kernel slice, or a block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.errors import OptionError
from impq_opt.groups.names import GroupNames
from impq_opt.tracing.graph import Network
from impq_opt.tracing.sites import WeightSite
from impq_opt.types import FloatArray

__all__ = ["GROUPINGS", "Grouping"]

GROUPINGS = ("layer", "kernel", "slice", "block")


@dataclass(frozen=True)
class Grouping:
    """How the weights of a site (out, in, *kernel) are cut into groups; activations have one group per tensor.

    Parameters
    ----------
    kind : {"layer", "kernel", "slice", "block"}
        All weights; those of one output channel; those from one input to one output channel; ``size`` in a row in C
        order.
    size : int
        Weights per block; the last block of a layer may hold fewer.

    Notes
    -----
    Whatever the groups are, the quantizer of a weight spans ``2 max |w|`` over its *output kernel* (IMPQ authors'
    code) unless its grid says otherwise, and each weight's share of E carries the square of that. A group's stored
    range is the root mean square over its weights: for kernels and slices, exactly the quantizer's.
    """

    kind: str = "layer"
    size: int = 64

    def __post_init__(self) -> None:
        if self.kind not in GROUPINGS:
            raise OptionError(
                "unknown grouping", where="groups", value=self.kind, hint="known are layer, kernel, slice, block"
            )
        if self.size < 1:
            raise OptionError("a block holds at least one weight", where="block", value=self.size)

    @classmethod
    def read(cls, text: str, where: str = "groups") -> Grouping:
        """Return what ``"kernel"`` or ``"block:32"`` names; ``where`` is the place, for the error.

        Raises
        ------
        OptionError
            A kind that is unknown, or a size that is no whole number.
        """
        kind, colon, size = text.partition(":")
        if not colon:
            return cls(kind)
        try:
            number = int(size)
        except ValueError:
            raise OptionError("needs a whole number behind the colon", where=where, value=size) from None
        return cls(kind, number)

    @property
    def fine(self) -> bool:
        """Whether squares are needed weight by weight, not only kernel by kernel."""
        return self.kind in ("slice", "block")

    def shape(self, site: WeightSite) -> tuple[int, ...]:
        """Return the shape of the groups of a site; ``()`` is one group."""
        if self.kind == "layer":
            return ()
        if self.kind == "block":
            return (math.ceil(math.prod(site.shape) / self.size),)
        return site.shape[:1] if self.kind == "kernel" else site.shape[:2]

    def sizes(self, site: WeightSite) -> npt.NDArray[np.int64]:
        """Return the weights per group of a site."""
        total = math.prod(site.shape)
        groups = math.prod(self.shape(site))
        sizes = np.full(groups, self.size if self.kind == "block" else total // groups, dtype=np.int64)
        sizes[-1] = total - int(sizes[:-1].sum())
        return sizes

    def sum(self, site: WeightSite, squares: Tensor) -> Tensor:
        """Sum values of a site, (..., out) per kernel or (..., out, inputs) per weight, into (..., groups)."""
        if not self.fine:
            return squares if self.kind == "kernel" else squares.sum(-1, keepdim=True)
        if self.kind == "slice":
            lead = squares.shape[:-2]
            return squares.reshape(*lead, site.shape[0] * site.shape[1], -1).sum(-1)
        flat = squares.flatten(-2)
        missing = -flat.shape[-1] % self.size
        return torch.nn.functional.pad(flat, (0, missing)).unflatten(-1, (-1, self.size)).sum(-1)

    def ranges(self, site: WeightSite, spans: Tensor) -> FloatArray:
        """Return the root mean square, over the weights of each group, of the ranges ``spans`` (out,) of kernels."""
        square = spans.square()
        wide = square[:, None].expand(-1, math.prod(site.shape[1:]))
        totals = self.sum(site, wide if self.fine else wide.sum(1))
        mean: FloatArray = totals.cpu().numpy() / self.sizes(site)
        return np.sqrt(mean)

    def names(self, network: Network) -> GroupNames:
        """Return the names of all groups: weight sites in order, then activation sites."""
        labels = [site.name for site in network.weights] + [site.name for site in network.activations]
        shapes = [self.shape(site) for site in network.weights] + [() for _ in network.activations]
        return GroupNames(tuple(labels), tuple(shapes))


def kernel_ranges(weight: Tensor) -> Tensor:
    """Return the span ``2 max |w|`` (out,), float64, of every output kernel."""
    return 2 * weight.detach().flatten(1).abs().amax(1).double()
