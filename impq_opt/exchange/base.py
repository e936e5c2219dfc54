"""What every format has: a name, what it cannot express, and a way in (Reader), out (Writer) or both."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.documents.reading import read_text, unique_keys
from impq_opt.errors import AllocationError, FileError, MissingPackageError
from impq_opt.exchange.fused import fused_ties, layer_ties
from impq_opt.exchange.restate import Precision, restate
from impq_opt.exchange.zeros import accept_zeros as zeros_accepted
from impq_opt.exchange.zeros import refuse_nothing_measured, unmeasured_zeros
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray

__all__ = [
    "Format",
    "Layer",
    "Precision",
    "Reader",
    "Writer",
    "need",
    "read_json",
    "shifted",
    "table",
    "typed",
    "whole",
]

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Layer:
    """What an allocation says about one layer: its weights' precision, and its input's where that is a group."""

    name: str
    weight: Precision
    input_bits: float | None = None


class Format(ABC):
    """A file format or in-memory configuration of another tool.

    Formats are frozen dataclasses: their fields are the options.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]  # where the format is defined
    package: ClassVar[str] = ""  # what to install for the native objects


class Reader(Format):
    """A format whose scores become a problem."""

    @abstractmethod
    def problem(self, scores: Any) -> Problem:
        """Return the problem that ``scores``, in the tool's own shape, declare.

        Those of the shipped formats have passed :func:`~impq_opt.exchange.zeros.unmeasured_zeros`.
        """

    def load(self, paths: Sequence[Path]) -> Any:
        """Return the scores that the files at ``paths`` hold; JSON unless the format says otherwise."""
        return read_json(self.only(paths))

    def read(self, *paths: str | Path, accept_zeros: bool = False) -> Problem:
        """Return the problem that the files at ``paths`` declare.

        Parameters
        ----------
        *paths : path
        accept_zeros : bool
            Take groups whose scores are all 0 as harmless. Otherwise they are unmeasured, and keep their most bits.

        Raises
        ------
        FileError
            What cannot be read as this format, or scores that are all 0 where zeros are not accepted.
        """
        files = [Path(path) for path in paths]
        problem = unmeasured_zeros(self.problem(self.load(files)))
        if accept_zeros:
            problem = zeros_accepted(problem)
        else:
            refuse_nothing_measured(problem, ", ".join(path.name for path in files))
        origin = {"format": self.name, "files": [path.name for path in files]}
        return replace(problem, provenance=origin | dict(problem.provenance))

    def only(self, paths: Sequence[Path]) -> Path:
        """Return the one path there is.

        Raises
        ------
        FileError
            Where there are none or several.
        """
        if len(paths) != 1:
            raise FileError(f"{self.name} scores are one file", value=[str(path) for path in paths])
        return paths[0]


class Writer(Format):
    """A format that an allocation is written in."""

    limits: ClassVar[str]  # the allocations that the target cannot express
    layerwise: ClassVar[bool] = True  # one precision a layer
    fused: ClassVar[bool] = False  # q/k/v and gate/up must agree
    ending: ClassVar[str] = ".json"  # of its file's name
    inputs: ClassVar[tuple[int, ...]] = ()  # bits that a layer's input may have; () where inputs are never quantized

    @abstractmethod
    def precisions(self) -> tuple[Precision, ...]:
        """Return what the target stores; the first of a number of bits stands for plain bits."""

    @abstractmethod
    def config(self, allocation: Allocation) -> Any:
        """Return the configuration in the target's own shape, of plain JSON types."""

    def native(self, allocation: Allocation) -> Any:
        """Return what the target's own functions take; its package is imported where it has types of its own."""
        return self.config(allocation)

    def dump(self, allocation: Allocation) -> bytes:
        """Return the configuration as the bytes of a file."""
        return (json.dumps(self.config(allocation), indent=2) + "\n").encode()

    def layers(self, allocation: Allocation, table: Sequence[Precision] | None = None) -> list[Layer]:
        """Return the precision of each layer with weights, in the order of the problem.

        Parameters
        ----------
        table
            The precisions to choose from; :meth:`precisions` where left out.

        Raises
        ------
        AllocationError
            Where the target cannot express the allocation: kernels of one layer differ, a precision is unknown to it,
            or an activation has a precision that it does not offer.
        """
        problem, bits = allocation.problem, np.asarray(allocation.bits, dtype=np.float64)
        activations = np.flatnonzero(~problem.weights())
        if len(activations) and not self.inputs:
            raise self._refusal("stores weights only", problem.names[int(activations[0])], "is an activation")
        labels = _labels(allocation)
        chosen: dict[str, tuple[str, float]] = {}
        inputs: dict[str, float | None] = {}
        for group in np.flatnonzero(problem.weights()).tolist():
            layer = problem.names.layers[int(problem.names.label_of[group])]
            said = (labels[group], float(bits[group]))
            if chosen.setdefault(layer, said) != said:
                raise self._refusal(
                    "stores one precision a layer",
                    layer,
                    f"has groups at {chosen[layer][0]} and {said[0]}",
                    f"tie the groups of a layer before solving: --tie {layer!r}",
                )
            inputs[layer] = self._read(problem, group, bits)
        return [
            Layer(layer, self._precision(layer, *said, table or self.precisions()), self._input(layer, inputs[layer]))
            for layer, said in chosen.items()
        ]

    def _read(self, problem: Problem, group: int, bits: npt.NDArray[np.float64]) -> float | None:
        """Return the precision of what a weight group reads, if that is a group; several must agree."""
        sources = [] if problem.reads is None or problem.reads[group] < 0 else [int(problem.reads[group])]
        if problem.also_reads is not None:
            sources += problem.also_reads[problem.also_reads[:, 0] == group, 1].tolist()
        widths = sorted({float(bits[read]) for read in sources})
        if len(widths) > 1:
            several = " and ".join(f"{width:g}" for width in widths)
            raise self._refusal("has one input a layer", problem.names[group], f"reads inputs of {several} bits")
        return widths[0] if widths else None

    def _precision(self, layer: str, label: str, bits: float, table: Sequence[Precision]) -> Precision:
        for precision in table:
            if label.casefold() == precision.name.casefold():
                return precision
        for precision in table:
            if precision.bits == bits:
                return precision
        known = ", ".join(dict.fromkeys(f"{precision.name}" for precision in table))
        raise self._refusal(f"stores {known}", layer, f"has {label}", f"prepare the problem: --for {self.name}")

    def _input(self, layer: str, bits: float | None) -> float | None:
        if bits is not None and bits not in self.inputs:
            offered = ", ".join(map(str, self.inputs))
            raise self._refusal(f"offers inputs of {offered} bits", layer, f"reads an input of {bits:g} bits")
        return bits

    def _refusal(self, offers: str, where: str, what: str, hint: str = "") -> AllocationError:
        return AllocationError(f"{what}, and {self.name} {offers}", where=where, hint=hint or self.limits)

    def prepare(self, problem: Problem) -> Problem:
        """Return the problem as the target sees it: what it stores, at its true bits an element, fused layers tied.

        A candidate of B bits becomes every precision of B bits that the target stores. Damage is read at B, storage
        costs the precision's ``width``: scales and zero points count.

        Raises
        ------
        ProblemError
            Where a group, or a pin, is left without a precision.
        """
        inputs = tuple(Precision(str(bits), bits) for bits in self.inputs)
        prepared = restate(problem, self.precisions(), inputs, self.name)
        ties = layer_ties(problem) if self.layerwise else []
        return prepared.revise(ties=ties + (fused_ties(problem.names) if self.fused else []))


def _labels(allocation: Allocation) -> list[str]:
    candidates, choice = allocation.problem.candidates, allocation._need()
    names = [candidates.labels(number) for number in range(len(candidates.sets))]
    numbers = candidates.numbers(len(choice))
    return [names[int(number)][int(column)] for number, column in zip(numbers, choice, strict=True)]


def shifted(damage: FloatArray) -> tuple[FloatArray, float]:
    """Return damage (G, K) with each group's smallest value at 0 where it was negative, and the sum taken off.

    A measured loss can fall. A constant a group changes no comparison of allocations.
    """
    lowest = np.minimum(damage.min(axis=1), 0.0)
    return damage - lowest[:, None], float(lowest.sum())


def read_json(path: Path) -> Any:
    """Return the JSON document at ``path``; raise FileError where it is missing or none."""
    try:
        return json.loads(read_text(path, "JSON"), object_pairs_hook=unique_keys)
    except RecursionError:
        raise FileError("is not JSON: it is nested too deeply", where=str(path)) from None
    except FileError as error:
        raise error if error.where == str(path) else error.within(str(path)) from None
    except ValueError as error:
        raise FileError(f"is not JSON: {error}", where=str(path)) from None


def typed(document: Any, kind: type[Shape], where: str) -> Shape:
    """Return ``document`` as an object of ``kind``; raise FileError with the place where it is not one."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        at = place.strip("`").lstrip("$.")
        raise FileError(what, where=f"{where}: {at}" if at else where, hint="is it a file of this format?") from None


def table(rows: Sequence[Sequence[float]], where: str) -> FloatArray:
    """Return rows as an array (G, K), short ones filled up with their last value; raise FileError unless finite."""
    width = max(map(len, rows))
    values = np.array([[*row, *[row[-1]] * (width - len(row))] for row in rows], dtype=np.float64)
    if not np.isfinite(values).all():
        group, column = np.argwhere(~np.isfinite(values))[0]
        raise FileError("must be finite", where=f"{where}[{group}][{column}]", value=float(values[group, column]))
    return values


def whole(costs: FloatArray) -> FloatArray | npt.NDArray[np.int64]:
    """Return costs as integers where they are whole and exact."""
    exact = np.abs(costs).max() < 2.0**53 and bool((costs == np.rint(costs)).all())
    return costs.astype(np.int64) if exact else costs


def need(module: str, purpose: str, install: str) -> Any:
    """Return an optional package's module; raise MissingPackageError with the install line where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(install, f"{purpose} ({error})", install) from error
