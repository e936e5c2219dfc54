"""The way to a program: from a problem with its allocation, or from a packed file; and how alike both decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.compile.building import IN_FLOAT
from impq_opt.compile.levels import Coded, coded_of, coded_of_packed
from impq_opt.compile.lowering import OUTPUT_BITS, lower
from impq_opt.compile.program import Encoding, Program
from impq_opt.compile.reference_torch import run_torch
from impq_opt.data.batch import Structure
from impq_opt.errors import DataError
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.quantize import quantize_traced, unpack
from impq_opt.quantize.network import traced_for
from impq_opt.quantize.packing import unpack_traced
from impq_opt.tracing.module import TracedModule

__all__ = ["Agreement", "Rounded", "agreement", "rounded_by", "rounded_from"]

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Rounded:
    """A quantized network that computes in floating point, and the codes of its weights.

    Parameters
    ----------
    network : TracedModule
        In eval mode.
    weights : mapping of str to Coded
    """

    network: TracedModule
    weights: dict[str, Coded]

    def program(self, encoding: Encoding, *, name: str = "network", output_bits: int = OUTPUT_BITS) -> Program:
        """Return it in whole numbers; see :func:`~impq_opt.compile.lowering.lower`.

        Raises
        ------
        DataError, OptionError
            As of :func:`~impq_opt.compile.lowering.lower`.
        """
        return lower(self.network, self.weights, encoding, name=name, output_bits=output_bits)


def rounded_by(
    network: nn.Module, problem: Problem, allocation: Allocation | npt.ArrayLike, *, example: Structure | None = None
) -> Rounded:
    """Return a network rounded as allocated.

    Parameters
    ----------
    network : nn.Module
        In float; left as it is.
    problem : Problem
    allocation : Allocation, or array of int (G,)
    example : Tensor, optional
        Inputs (n, ...) to trace with; made from the problem's provenance unless given.

    Raises
    ------
    DataError, AllocationError
        As of :func:`impq_opt.quantize.quantize`.
    """
    traced = traced_for(network, example, problem.provenance.get("input"))
    quantized = quantize_traced(traced, problem, allocation).eval()
    return Rounded(quantized, coded_of(quantized))


def rounded_from(network: nn.Module, path: str | Path, *, example: Structure | None = None) -> Rounded:
    """Return the quantized network of a packed file.

    Parameters
    ----------
    network : nn.Module
        The float network that it was made from.
    path : path
    example : Tensor, optional
        Inputs (n, ...) to trace with; as the file tells unless given.

    Raises
    ------
    FileError
        The file cannot be read.
    DataError
        It is of another network, or its activations are in float.
    """
    packed = unpack(path)
    if not packed.activations:
        raise DataError("leaves all activations in float", where=str(path), hint=IN_FLOAT)
    module = unpack_traced(traced_for(network, example, packed.input), path).eval()
    assert isinstance(module, TracedModule)
    return Rounded(module, coded_of_packed(packed))


@dataclass(frozen=True)
class Agreement:
    """How a program decides beside the quantized network in floating point.

    Parameters
    ----------
    samples : int
    alike : int
        Decisions that are the same.
    margin : float
        The largest distance of the two largest logits, in floating point, where decisions differ; 0 where none does.
    right, right_in_float : int or None
        Right decisions of the program and of the quantized network; None without labels.
    """

    samples: int
    alike: int
    margin: float
    right: int | None
    right_in_float: int | None


@torch.no_grad()
def agreement(
    program: Program,
    network: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Return how alike a program and the quantized network decide on inputs (n, ...), with ``labels`` (n,) if known.

    The program runs where the inputs are, and so must the network.
    """
    decided: list[Tensor] = []
    logits: list[Tensor] = []
    for start in range(0, len(x), _BATCH):
        some = x[start : start + _BATCH]
        codes = torch.from_numpy(program.encode(some.cpu().numpy())).to(some.device)
        decided.append(run_torch(program, codes).argmax(1).cpu())
        logits.append(network(some).double().cpu())
        if progress is not None:
            progress(min(len(x), start + _BATCH), len(x))
    own, both = torch.cat(decided), torch.cat(logits)
    expected, top = both.argmax(1), both.topk(2).values
    differ = own != expected
    return Agreement(
        len(x),
        int((~differ).sum()),
        float((top[:, 0] - top[:, 1])[differ].max()) if bool(differ.any()) else 0.0,
        *(None if labels is None else int((which == labels.cpu()).sum()) for which in (own, expected)),
    )
