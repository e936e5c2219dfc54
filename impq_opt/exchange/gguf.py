"""GGUF: a model's tensors become a problem, and an allocation the model itself, quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from impq_opt.costs import TableCost
from impq_opt.documents.writing import atomic_write
from impq_opt.encodings import Encoding, encoding
from impq_opt.encodings.gguf import GGUF_TYPES, GgufType
from impq_opt.errors import AllocationError, FileError, OptionError, nearest
from impq_opt.exchange.base import Precision, Reader, Writer
from impq_opt.exchange.gguf_model import GgufModel, GgufTensor
from impq_opt.exchange.llama_cpp import LlamaCpp, gguf_name
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.encoded import encoded_problem
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Stay

__all__ = ["FILE", "Gguf"]

FILE = "file"
"""The cost term that says, in bits, how large the whole file is."""

# Rows that are rounded at once.
_ROWS = 1024


@dataclass(frozen=True)
class Gguf(Reader, Writer):
    """A ``.gguf`` model: tensors that llama.cpp quantizes are groups, and their types candidates.

    What is read are the weights, and damages are errors of the weights alone, by the reference code of each type:
    ``|W - Q(W)|^2 / |W|^2``, the terms of the linearity theorem (Malinovskii et al., arXiv:2411.17525, 2024) with all
    coefficients 1. They say how well a matrix is kept, not how much depends on it. The cost ``file`` is the size of the
    file that is written, to the byte.

    Parameters
    ----------
    types : str
        Candidates, with commas between; all types below 16 bits that need no importance matrix where empty.
    rows : int
        Rows of each matrix that errors are measured on, evenly spaced; all of them where 0.
    model : str
        The ``.gguf`` file that is quantized when an allocation is written.
    """

    name: ClassVar[str] = "gguf"
    summary: ClassVar[str] = "a model of llama.cpp, read for its tensors, and written with the types chosen"
    source: ClassVar[str] = "https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"
    package: ClassVar[str] = "gguf"
    ending: ClassVar[str] = ".gguf"
    limits: ClassVar[str] = LlamaCpp.limits

    types: str = ""
    rows: int = 0
    model: str = ""

    # -- in ------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> GgufModel:
        return GgufModel.open(self.only(paths))

    def problem(self, scores: GgufModel) -> Problem:
        kinds = self._candidates()
        inside = [t for t in scores.tensors if t.quantizable and any(kind.holds(t.length) for kind in kinds)]
        if not inside:
            lengths = sorted({tensor.length for tensor in scores.tensors if tensor.quantizable})
            raise FileError(
                "no tensor can have one of these types",
                where=self.types or self.name,
                hint=f"rows are {', '.join(map(str, lengths))} long"
                if lengths
                else "the file has no matrices of weights",
            )
        held = {tensor.name: [kind for kind in kinds if kind.holds(tensor.length)] for tensor in inside}
        columns = max(map(len, held.values()))
        sizes = [[8 * scores.padded(tensor, kind) for kind in held[tensor.name]] for tensor in inside]
        whole = np.array([[*row, *row[-1:] * (columns - len(row))] for row in sizes])
        first = {name: row[0] for name, row in held.items()}
        fixed = 8 * scores.size(first) - int(whole[:, 0].sum())
        term = TableCost.from_array(whole, name=FILE, unit="bit", source="the .gguf file, to the byte")
        named = {tensor.name for tensor in inside}
        stored = Fraction(8 * sum(t.data.size for t in inside), sum(t.elements for t in inside))
        return encoded_problem(
            {tensor.name: (tensor.rows, tensor.length) for tensor in inside},
            kinds,
            lambda name, row: relative_errors(scores.by_name[name], row, self.rows),
            costs=(replace(term, fixed=fixed),),
            objective={FILE: 1},
            metric="weight-error",
            damage_unit="sum of relative squared errors",
            stored=stored,
            stays=tuple(_stay(tensor) for tensor in scores.tensors if tensor.name not in named),
            provenance={"rows": self.rows or "all"},
        )

    def _candidates(self) -> list[GgufType]:
        if not self.types:
            return [kind for kind in GGUF_TYPES if kind.nominal < 16 and not kind.guided]
        found = []
        for name in self.types.split(","):
            one = encoding(name.strip())
            if not isinstance(one, GgufType) or one.guided:
                usable = [kind.name for kind in GGUF_TYPES if not kind.guided]
                what = "is no type of GGUF" if not isinstance(one, GgufType) else "needs an importance matrix"
                raise OptionError(what, where="types", value=name.strip(), hint=nearest(name.strip(), usable))
            found.append(one)
        return list(dict.fromkeys(found))

    # -- out -----------------------------------------------------------------------------------------------------

    def precisions(self) -> tuple[Precision, ...]:
        guided = {kind.name for kind in GGUF_TYPES if kind.guided}
        return tuple(precision for precision in LlamaCpp().precisions() if precision.name not in guided)

    def config(self, allocation: Allocation) -> dict[str, str]:
        """Return tensor name, as the model has it, to type."""
        return {name: kind.name for name, kind in self._kinds(allocation, self._open()).items()}

    def dump(self, allocation: Allocation) -> bytes:
        model = self._open()
        return b"".join(model.pieces(self._kinds(allocation, model)))

    def write(self, allocation: Allocation, path: str | Path) -> int:
        model = self._open()
        kinds = self._kinds(allocation, model)
        size = model.size(kinds)
        _check_promise(allocation, size, model)
        atomic_write(path, model.pieces(kinds))
        return size

    def _open(self) -> GgufModel:
        if not self.model:
            raise OptionError("say which model is quantized", where="model", hint="--option model=FILE.gguf")
        return GgufModel.open(self.model)

    def _kinds(self, allocation: Allocation, model: GgufModel) -> dict[str, GgufType]:
        by_name = {kind.name: kind for kind in GGUF_TYPES}
        sizes = _sizes(allocation.problem)
        kinds: dict[str, GgufType] = {}
        for layer in self.layers(allocation):
            name = layer.name if layer.name in model.by_name else gguf_name(layer.name)
            tensor, kind = model.by_name.get(name), by_name[layer.weight.entry]
            if tensor is None:
                hint = nearest(name, model.by_name) or "is it the model that the problem was made of?"
                raise AllocationError(f"is not in {model.path.name}", where=name, hint=hint)
            if tensor.elements != sizes[layer.name]:
                raise AllocationError(
                    f"has {tensor.elements:,} weights in {model.path.name}, and {sizes[layer.name]:,} in the problem",
                    where=name,
                    hint="is it the model that the problem was made of?",
                )
            if not kind.holds(tensor.length):
                raise AllocationError(
                    f"has rows of {tensor.length} weights, and {kind.name} holds whole blocks of {kind.block}",
                    where=name,
                    hint="impq-opt import PROBLEM --for llama.cpp, where the problem has the lengths of rows",
                )
            kinds[name] = kind
        return kinds


def relative_errors(tensor: GgufTensor, kinds: Sequence[Encoding], rows: int = 0) -> list[float]:
    """Return the squared error of a tensor at each of ``kinds``, over its squared length; 0 where it is as it is.

    Parameters
    ----------
    tensor : GgufTensor
    kinds : sequence of Encoding
    rows : int
        So many rows are looked at, evenly spaced; all of them where 0.

    Raises
    ------
    MissingPackageError
        Without libgguf.
    """
    step = max(1, tensor.rows // rows) if rows else 1
    lost, length = np.zeros(len(kinds)), 0.0
    for first in range(0, tensor.rows, _ROWS * step):
        weights = tensor.weights(first, first + _ROWS * step)[::step]
        length += float(np.square(weights, dtype=np.float64).sum())
        for column, kind in enumerate(kinds):
            if kind is not tensor.kind:  # what has the type already is kept, bit for bit
                lost[column] += float(np.square(kind.round(weights) - weights, dtype=np.float64).sum())
    found: list[float] = (lost / length if length else lost).tolist()
    return found


def _stay(tensor: GgufTensor) -> Stay:
    bits = Fraction(8 * tensor.data.size, tensor.elements)
    why = "its rows are no whole number of blocks" if tensor.quantizable else "llama.cpp does not quantize it"
    return Stay(tensor.name, tensor.elements, bits, why)


def _sizes(problem: Problem) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for label, size in zip(problem.names.label_of.tolist(), problem.sizes.tolist(), strict=True):
        name = problem.names.layers[label]
        sizes[name] = sizes.get(name, 0) + size
    return sizes


def _check_promise(allocation: Allocation, size: int, model: GgufModel) -> None:
    """Refuse where the problem says that the file has another size than it gets."""
    problem: Any = allocation.problem
    for term in problem.costs:
        if term.name == FILE and isinstance(term, TableCost) and allocation.choice is not None:
            values = term.values[np.arange(len(problem)), allocation.choice]
            promised = sum(values.tolist()) * term.quantum + term.fixed
            if promised != 8 * size:
                raise AllocationError(
                    f"the problem promises a file of {nearest_bytes(promised)} bytes, and it would have {size}",
                    where=model.path.name,
                    hint="is it the model that the problem was made of?",
                )


def nearest_bytes(bits: Fraction) -> int:
    """Return bits as whole bytes, rounded up."""
    return -int(-bits // 8)
