"""What every format has: a name, what it cannot express, and a way in (Reader), out (Writer) or both."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.documents.reading import key_at, read_bytes, read_json, stated_format, value_at
from impq_opt.documents.wording import rule_text
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import (
    AllocationError,
    FileError,
    InputError,
    OptionError,
    ProblemError,
)
from impq_opt.exchange.fused import fused_ties, layer_ties
from impq_opt.exchange.modules import bare_parameters
from impq_opt.exchange.restate import LEFT_ALONE, Precision, restate
from impq_opt.exchange.zeros import accept_zeros as zeros_accepted
from impq_opt.exchange.zeros import refuse_nothing_measured, unmeasured_zeros
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import AS_IT_IS, few
from impq_opt.registry import need
from impq_opt.types import FloatArray

__all__ = [
    "CONVOLUTIONS",
    "LEFT_ALONE",
    "Format",
    "Layer",
    "Precision",
    "Reader",
    "Writer",
    "looks_like",
    "need",
    "typed",
    "whole",
]

Shape = TypeVar("Shape")

CONVOLUTIONS = frozenset(f"Conv{kind}" for kind in ("1d", "2d", "3d", "Transpose1d", "Transpose2d", "Transpose3d"))


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

        Those of the shipped formats have passed :func:`~impq_opt.exchange.zeros.unmeasured_zeros`, and negative scores
        :func:`~impq_opt.exchange.scores.shifted`.
        """

    def load(self, paths: Sequence[Path]) -> Any:
        """Return the scores that the files at ``paths`` hold; JSON unless the format says otherwise."""
        return read_json(self.only(paths), infinite=True)

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
        called = ", ".join(path.name or str(path) for path in files)
        for path in files:
            stated = stated_format(path) if os.path.isfile(path) else ""
            if stated:
                raise FileError(f"is an {stated}, not scores of {self.name}", where=str(path), hint=_IMPORTS)
        scores = self.load(files)
        try:
            problem = unmeasured_zeros(self.problem(scores))
        except InputError as error:
            raise error.within(called) from None
        if accept_zeros:
            problem = zeros_accepted(problem)
        else:
            refuse_nothing_measured(problem, called)
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
    rounding: ClassVar[str] = ""  # the method by which it rounds weights; "" where that is none of this package's
    short: ClassVar[bool] = False  # the last block of an output kernel may have fewer elements
    uncut: ClassVar[frozenset[str]] = frozenset()  # classes of modules whose weights it does not cut into blocks
    inputs: ClassVar[tuple[int, ...]] = ()  # bits that a layer's input may have; () where inputs are never quantized
    unsupported: ClassVar[frozenset[str]] = frozenset()  # classes of modules whose weights it cannot quantize

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
        return msgspec.json.format(msgspec.json.encode(self.config(allocation)), indent=2) + b"\n"

    def write(self, allocation: Allocation, path: str | Path) -> int:
        """Write the configuration to ``path``, whole or not at all, and return its bytes.

        Raises
        ------
        AllocationError
            What the target cannot express.
        FileError
            Where the file cannot be written.
        """
        data = self.dump(allocation)
        atomic_write(path, data)
        return len(data)

    def measured(self, groups: str = "layer", bits: Sequence[float] = ()) -> tuple[str, tuple[float, ...]]:
        """Return the grid that weights are rounded on, as ``Problem.grids`` names it, and the precisions they may have.

        16 bits stand for what is left as it is, where the target leaves layers.

        Parameters
        ----------
        groups : str
            What shares a precision, as :func:`impq_opt.measure.measure` takes it.
        bits : sequence of number
            Those that are wanted; all that the target has where empty.

        Raises
        ------
        OptionError
            Where no grid of this package is the target's, or it has not these precisions or groups.
        """
        if self.layerwise and groups != "layer":
            raise OptionError(f"{self.name} stores one precision a layer", where="groups", value=groups)
        grid = self.grid()
        if not grid:
            raise OptionError(
                "rounds weights in a way that is none of `impq-opt methods`, so they cannot be measured as stored",
                where="for",
                value=self.name,
            )
        known = dict.fromkeys(float(precision.bits) for precision in self.precisions() if precision.on_grid)
        for width in bits:
            if width not in known:
                offered = ", ".join(f"{one:g}" for one in known)
                raise OptionError(f"{self.name} stores {offered}", where="bits", value=f"{width:g}")
        return grid, tuple(bits or known)

    def grid(self) -> str:
        """Return the grid that weights are rounded on, as ``Problem.grids`` names it; "" where it is no method's.

        Of precisions with blocks and without, the former are those of fewest bits.
        """
        stored = [precision for precision in self.precisions() if precision.bits < AS_IT_IS and precision.on_grid]
        blocks = {precision.block for precision in stored if precision.block}
        if not self.rounding or len(blocks) > 1:
            return ""
        if not blocks:
            return self.rounding
        most = max(precision.bits for precision in stored if precision.block)
        wider = any(precision.bits > most for precision in stored)
        return f"{self.rounding}:over={blocks.pop()}" + (f"/{most}" if wider else "")

    @property
    def checkpoints(self) -> bool:
        """Whether :meth:`checkpoint` says what the target's checkpoints hold of a weight."""
        return type(self).checkpoint is not Writer.checkpoint

    def checkpoint(
        self, name: str, bits: int, codes: npt.NDArray[np.int64], steps: npt.NDArray[np.floating[Any]]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Return the tensors that stand for a weight in the target's checkpoints, by name.

        Parameters
        ----------
        name : str
            Of the parameter.
        bits : int
        codes : ndarray of int64 (out, inputs)
            From 0 to 2^bits - 1.
        steps : ndarray (out, blocks)
            Of as many equal runs of inputs.

        Raises
        ------
        NotImplementedError
            Where :attr:`checkpoints` is False.
        """
        raise NotImplementedError

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
            an activation has a precision that it does not offer, or a weight is no module's that it can quantize.
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
        table = table or self.precisions()
        stored = {said: self._precision(layer, *said, table) for layer, said in _first_of_each(chosen)}
        self._check_blocks(problem, {layer: stored[said] for layer, said in chosen.items()})
        for layer, what in self._left(problem).items():
            if layer in chosen and stored[chosen[layer]].bits < AS_IT_IS:
                raise self._refusal("leaves it as it is", layer, what, f"leave it: --pin {layer!r}=16")
        return [Layer(layer, stored[said], self._input(layer, inputs[layer])) for layer, said in chosen.items()]

    def _check_blocks(self, problem: Problem, stored: Mapping[str, Precision]) -> None:
        """Raise AllocationError where blocks do not divide the output kernels of a layer, and would have to."""
        for group in np.flatnonzero(problem.weights()).tolist():
            label = int(problem.names.label_of[group])
            layer, kind = problem.names.layers[label], problem.types.get(problem.names.labels[label])
            precision = stored[layer]
            length = 0 if problem.lengths is None else int(problem.lengths[group])
            if precision.block and kind in self.uncut:
                raise self._refusal(
                    f"has no blocks of {precision.block} in weights of {kind}", layer, f"has {precision.name}"
                )
            if not self.short and not precision.holds(length):
                raise self._refusal(
                    f"wants output kernels of whole blocks of {precision.block}",
                    layer,
                    f"has kernels of {length} weights",
                    f"leave it at 16 bits, or take another group_size: impq-opt import PROBLEM --for {self.name} -o "
                    "prepared.toml allows each layer what can be stored",
                )

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
        raise self._refusal(
            f"stores {known}",
            layer,
            f"has {label}",
            f"impq-opt import PROBLEM --for {self.name} -o prepared.toml, and solve that",
        )

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
        costs the precision's ``width``: scales and zero points count. Weights that the target cannot quantize, such as
        those of recurrent layers, are pinned to 16 bits.

        Raises
        ------
        ProblemError
            Where a group, or a pin, is left without a precision.
        """
        inputs = tuple(Precision(str(bits), bits) for bits in self.inputs)
        # Damages that were measured on the target's grid say nothing of its other levels.
        measured = bool(problem.grids) and set(problem.grids.values()) == {self.grid()}
        weights = [precision for precision in self.precisions() if precision.on_grid or not measured]
        prepared = self._leaving(restate(problem, weights, inputs, self.name, short=self.short, uncut=self.uncut))
        ties = layer_ties(problem) if self.layerwise else []
        return prepared.revise(ties=ties + (fused_ties(problem.names) if self.fused else []))

    def _left(self, problem: Problem) -> dict[str, str]:
        """Return by layer why its weight is one that the target cannot quantize."""
        types = zip(problem.names.layers, map(problem.types.get, problem.names.labels), strict=True)
        unsupported = {layer: f"is the weight of {kind}" for layer, kind in types if kind in self.unsupported}
        return bare_parameters(problem.names, problem.types) | unsupported

    def _leaving(self, prepared: Problem) -> Problem:
        """Return the problem with weights that the target cannot quantize pinned to what is not quantized."""
        left, names, weights = self._left(prepared), prepared.names, prepared.weights()
        places = [k for k, layer in enumerate(names.layers) if layer in left and weights[names.offsets[k]]]
        if not places:
            return prepared
        pins = {names.labels[place]: self._whole(prepared, place, left) for place in places}
        note = {"left_as_it_is": few(names, np.flatnonzero(np.isin(names.label_of, places)))}
        return replace(prepared.revise(pins=pins), provenance=dict(prepared.provenance) | note)

    def _whole(self, prepared: Problem, place: int, left: Mapping[str, str]) -> str:
        """Return what the unquantized candidate of a label is called."""
        offered = prepared.candidates.labels(prepared.candidates.number_of(int(prepared.names.offsets[place])))
        for precision in self.precisions():
            if precision.bits >= AS_IT_IS and precision.name in offered:
                return precision.name
        raise ProblemError(
            f"{left[prepared.names.layers[place]]}, which {self.name} leaves as it is, and may not have 16 bits",
            where=f"{prepared.names.labels[place]}.bits",
            value=list(offered),
            hint="let it have 16 bits, or leave it out of the problem",
        )


def _first_of_each(chosen: Mapping[str, tuple[str, float]]) -> Iterator[tuple[str, tuple[str, float]]]:
    """Yield the first layer of each precision, so that what cannot be stored is told of a layer."""
    seen: set[tuple[str, float]] = set()
    for layer, said in chosen.items():
        if said not in seen:
            seen.add(said)
            yield layer, said


def _labels(allocation: Allocation) -> list[str]:
    candidates, choice = allocation.problem.candidates, allocation._need()
    names = [candidates.labels(number) for number in range(len(candidates.sets))]
    numbers = candidates.numbers(len(choice))
    return [names[int(number)][int(column)] for number, column in zip(numbers, choice, strict=True)]


def typed(document: Any, kind: type[Shape], where: str = "") -> Shape:
    """Return ``document`` as an object of ``kind``; raise FileError with the place where it is not one."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        at = place.strip("`").removeprefix("key in ").strip("`").removeprefix("$")
        named = key_at(document, kind, at) if "[...]" in at else ""
        value = ... if "missing required field" in what else value_at(document, at, named)
        if named:
            rest = at.partition("[...]")[2]
            at = f"{named}: {rest[1:]}" if rest.startswith(".") else f"{named}{rest}"
        keys = document if isinstance(document, dict) else ()
        other = next((name for key, name in _MARKS.items() if key in keys), "")
        hint = f"they look like scores of {other}" if other and not at else "are they scores of this format?"
        place = ": ".join(part for part in (where, at.lstrip(".")) if part)
        raise FileError(rule_text(what), where=place, value=value, hint=hint) from None


# Keys that tell whose scores a JSON document has.
_MARKS = {"candidate_stats": "modelopt", "layer_scores": "autoround", "base_kld": "exllamav3"}
_IMPORTS = "import reads the scores of other tools; a problem is solved as it is"


def looks_like(path: Path) -> str:
    """Return the format whose scores the JSON file at ``path`` seems to hold; empty where none is known."""
    head = read_bytes(path)[: 1 << 16].decode("utf-8", errors="replace")
    return next((name for key, name in _MARKS.items() if f'"{key}"' in head), "")


def whole(costs: FloatArray) -> FloatArray | npt.NDArray[np.int64]:
    """Return costs as integers where they are whole and exact."""
    exact = np.abs(costs).max() < 2.0**53 and bool((costs == np.rint(costs)).all())
    return costs.astype(np.int64) if exact else costs
