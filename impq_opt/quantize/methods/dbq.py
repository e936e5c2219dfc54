"""After DBQ: sums of two scaled ternary branches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from impq_opt.quantize.methods.basis import Basis, size

__all__ = ["DBQ"]

_BRANCHES = tuple(product((-1.0, 0.0, 1.0), repeat=2))
# Equal steps of about least squared error for nine levels of a normal variable; branches of three steps and of one.
_STEP = 0.53


@dataclass(frozen=True)
class DBQ(Basis):
    """Levels a1 z1 + a2 z2 with z1, z2 of {-1, 0, 1}: nine of them, in codes of 4 bits.

    These are the hard branches that the paper's annealed sigmoids end in. The paper learns a1 and a2 by gradients; here
    they follow the weights by least squares, a tenth of the way before each training step.

    Parameters
    ----------
    over : {"kernel", "tensor"}
        The weights that share both scales; the layer in the paper.
    """

    name = "dbq"
    summary = "sums of two scaled ternary branches: nine levels a layer, zero among them"
    source = "after DBQ (Dbouk, Sanghvi, Mehendale and Shanbhag, ECCV 2020): its hard branches"
    widths = (4,)
    has_zero = True

    def levels(self, bits: int) -> int:
        return len(_BRANCHES)

    def factors(self, bits: int) -> Tensor:
        return torch.tensor(_BRANCHES)

    def starts(self, values: Tensor, bits: int) -> list[Tensor]:
        branches = values.new_tensor([3.0, 1.0])
        return [_STEP * size(values) * branches, values.abs().amax(1, keepdim=True) / 4 * branches]
