"""Levels that are no equal steps: a table of levels for each range of weights, made from a few scales.

Precisions may differ inside one range: at each precision the range has a table of its own, made from all its weights,
so that what one group's bits do does not depend on those of the others. Nothing here knows problems or networks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impq_opt.quantize.methods.base import Method, Moment, Quantizer, check_choice, check_sizes, exact, whole_bits
from impq_opt.quantize.methods.checks import through

__all__ = ["Codebook", "CodebookQuantizer", "StartedQuantizer", "between"]


@dataclass(frozen=True)
class Codebook(Method):
    """A table of at most 2^B levels for each range, and thresholds between them. Shapes: R ranges of n weights.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share their scales: an output kernel, or the whole tensor.
    """

    widths: ClassVar[Sequence[int]] = range(1, 9)

    over: str = "tensor"

    def __post_init__(self) -> None:
        check_choice("over", self.over, ("kernel", "tensor"))

    @abstractmethod
    def scales(self, values: Tensor, bits: int) -> Tensor:
        """Return the scales (R, P) for ``values`` (R, n): all that a packed file needs beside the codes."""

    @abstractmethod
    def table(self, scales: Tensor, bits: int) -> Tensor:
        """Return the levels (R, L) that scales (R, P) stand for; the code is the place."""

    def thresholds(self, values: Tensor, table: Tensor, bits: int) -> Tensor:
        """Return from where on (R, L - 1) each level but the first is taken: the middle between two, unless changed."""
        return between(table)

    def curve(self, values: Tensor, bits: int) -> Tensor:
        """Return the values (R, n) that are held against the thresholds, a differentiable function of the weights."""
        return values

    def levels(self, bits: int) -> int:
        return int(2**bits)

    def quantizer(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike
    ) -> CodebookQuantizer:
        return CodebookQuantizer(shape, bits, sizes, self)

    def spans(self, weight: Tensor) -> Tensor | None:
        return None


class CodebookQuantizer(Quantizer):
    """Quantizer of one weight by tables of levels; see :class:`Codebook`.

    Derive where scales are learned (:meth:`scales`), gradients are not straight-through (:meth:`latent`), or training
    computes with other values (:meth:`relaxed`, by :meth:`joined`).

    Parameters
    ----------
    shape, bits, sizes
        As in :meth:`Method.quantizer`.
    method : Codebook

    Raises
    ------
    OptionError
        A precision that the method has not, or groups that are not the weight.
    """

    method: Codebook

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: Codebook
    ) -> None:
        super().__init__()
        self.shape, self.method = tuple(shape), method
        self.group_bits = whole_bits(bits, method.widths, f"{method.name} has")
        self.group_sizes = check_sizes(self.shape, self.group_bits, sizes)
        self.view = (self.shape[0] if method.over == "kernel" else 1, -1)
        spread = np.repeat(self.group_bits, self.group_sizes).reshape(self.view)
        self.used: tuple[int, ...] = tuple(np.unique(self.group_bits).tolist())
        self.rows: dict[int, int] = {}
        for width in self.used:
            inside = spread == width
            rows = inside.any(1)
            own = inside[rows]
            self.rows[width] = len(own)
            # Not persistent: they follow from the allocation. None where all ranges, or all weights of them, are meant.
            places = None if rows.all() else torch.from_numpy(np.flatnonzero(rows))
            self.register_buffer(f"rows_{width}", places, persistent=False)
            self.register_buffer(f"inside_{width}", None if own.all() else torch.from_numpy(own), persistent=False)

    def scales(self, values: Tensor, bits: int) -> Tensor:
        """Return the scales (R, P) of the ranges that have groups of ``bits``, for their values (R, n)."""
        return self.method.scales(values, bits)

    def latent(self, values: Tensor, scales: Tensor, codes: Tensor, bits: int) -> Tensor:
        """Return what takes the gradient of the rounded values (R, n), by autograd."""
        return self.method.curve(values, bits)

    def joined(self, weight: Tensor, part: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Return what ``part`` makes of the ranges (R, n) of each precision, as a weight."""
        values = exact(weight).reshape(self.view)
        whole = torch.zeros_like(values)
        for bits, own in self._own(values):
            whole = self._put(whole, bits, part(own, bits))
        return whole.reshape(self.shape).to(weight.dtype)

    def codes(self, weight: Tensor) -> Tensor:
        return self._encoded(weight)[0]

    def side(self, weight: Tensor) -> dict[str, Tensor]:
        return self._encoded(weight)[1]

    def values(self, codes: Tensor, side: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        places = codes.reshape(self.view).long()
        kind = side[f"scale_{self.used[0]}"].dtype
        values = torch.zeros(places.shape, dtype=kind, device=places.device)
        for bits, own in self._own(places):
            table = self.method.table(side[f"scale_{bits}"], bits)
            # Codes of groups of other precisions in the same range may be beyond this table.
            values = self._put(values, bits, table.gather(1, own.clamp(max=table.shape[1] - 1)))
        return values.reshape(self.shape).to(dtype or kind)

    def rounded(self, weight: Tensor) -> Tensor:
        codes, side = self._encoded(weight)
        rounded = self.values(codes, side, weight.dtype)
        taking: Tensor = weight if self.method.straight_through else self._latent(weight, codes)
        return through(taking, rounded)

    def extra_repr(self) -> str:
        bits = self.group_bits
        return f"{self.method.spec}, {len(bits)} groups, {bits.min()}..{bits.max()} bits"

    @torch.no_grad()
    def _encoded(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return codes and side information, with the scales found once."""
        values, side = exact(weight).reshape(self.view), {}
        codes = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
        for bits, own in self._own(values):
            side[f"scale_{bits}"] = scales = self.scales(own, bits).contiguous()
            thresholds = self.method.thresholds(own, self.method.table(scales, bits), bits).contiguous()
            curve = self.method.curve(own, bits).contiguous()
            codes = self._put(codes, bits, torch.searchsorted(thresholds, curve, right=True).to(torch.uint8))
        return codes.reshape(self.shape), side

    def _latent(self, weight: Tensor, codes: Tensor) -> Tensor:
        values, places = exact(weight).reshape(self.view), codes.reshape(self.view).long()
        taking = torch.zeros_like(values)
        for (bits, own), (_, places_of_own) in zip(self._own(values), self._own(places), strict=True):
            taking = self._put(taking, bits, self.latent(own, self.scales(own, bits), places_of_own, bits))
        return taking.reshape(self.shape).to(weight.dtype)

    def _own(self, values: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each precision with the ranges (R, n) that have groups of it."""
        for bits in self.used:
            rows = self._buffers[f"rows_{bits}"]
            yield bits, values if rows is None else values[rows]

    def _put(self, whole: Tensor, bits: int, part: Tensor) -> Tensor:
        """Return ``whole`` with what ``part`` says of the weights of ``bits``."""
        rows, inside = self._buffers[f"rows_{bits}"], self._buffers[f"inside_{bits}"]
        if inside is not None:
            part = torch.where(inside, part, whole if rows is None else whole[rows])
        return part if rows is None else whole.index_copy(0, rows, part)


class StartedQuantizer(CodebookQuantizer):
    """Quantizer that keeps the scales (R, P) that its weights have when training begins, and starts from there.

    Until then they are a function of the weights. Derive, and say what P is.
    """

    columns: ClassVar[int]

    def __init__(
        self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike, method: Codebook
    ) -> None:
        super().__init__(shape, bits, sizes, method)
        for width in self.used:
            # Zeros until the first step: scales of zero would be those of weights that are all zero.
            self.register_buffer(f"start_{width}", torch.zeros(self.rows[width], self.columns))

    def scales(self, values: Tensor, bits: int) -> Tensor:
        kept = self._buffers[f"start_{bits}"]
        assert kept is not None
        return kept.to(values.dtype) if bool(kept.any()) else self.method.scales(values.detach(), bits)

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        for bits, own in self._own(exact(weight).reshape(self.view)):
            kept = self._buffers[f"start_{bits}"]
            assert kept is not None
            if not bool(kept.any()):
                kept.copy_(self.method.scales(own, bits))


def between(table: Tensor) -> Tensor:
    """Return the middles (R, L - 1) between levels (R, L) that rise."""
    return table[:, :-1] / 2 + table[:, 1:] / 2
