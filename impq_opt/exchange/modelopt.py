"""NVIDIA ModelOpt: auto_quantize's scores in, ``quant_cfg`` out, or its own search state with our answer in it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from impq_opt.costs import TableCost
from impq_opt.documents.reading import read_json
from impq_opt.errors import AllocationError, FileError, first_line
from impq_opt.exchange.base import CONVOLUTIONS, LEFT_ALONE, Precision, Reader, Writer, need, typed, whole
from impq_opt.exchange.choice import Chooser, Said
from impq_opt.exchange.scores import shifted, table
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.arrays import allowed_tables
from impq_opt.groups.candidates import gather_sets
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.names import GroupNames
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.types import IntArray

__all__ = ["ModelOpt"]

_SUFFIX = ".quant_recipe"
# ModelOpt measures sizes in weights of 16 bits; costs here are bits.
_UNCOMPRESSED_BITS = 16


@dataclass(frozen=True)
class ModelOpt(Reader, Writer, Chooser):
    """Takes the place of the search step of ``auto_quantize``: same scores, same costs, a certified answer.

    Read the search state that ``auto_quantize`` returns (:meth:`problem`) or its checkpoint (:meth:`read`), solve with
    ``budget=effective_bits * problem.sizes.sum()``, and give :meth:`solved` to ``get_auto_quantize_config``. Groups
    are ModelOpt's own: it has merged fused layers already. For allocations from elsewhere :meth:`config` writes a
    ``quant_cfg`` from nothing; the last entry that matches wins, so the first turns everything off.

    Written are the formats that ``export_hf_checkpoint`` takes: ``mtq.quantize`` simulates integers of any width, and
    goes no further with others.

    Parameters
    ----------
    group_size : int
        Weights of a row that share a float32 scale at 4 bits; rows are a multiple of it. At 8 bits a row has one.
    """

    name: ClassVar[str] = "modelopt"
    summary: ClassVar[str] = "auto_quantize scores in, quant_cfg for mtq.quantize out"
    source: ClassVar[str] = "https://github.com/NVIDIA/Model-Optimizer (torch/quantization/algorithms.py)"
    package: ClassVar[str] = "nvidia-modelopt"
    rounding: ClassVar[str] = "symmetric"
    limits: ClassVar[str] = (
        "one format a layer: 4 or 8 bits, FP8 or NVFP4, inputs of 8 or 16 bits, fused layers agree; "
        "at 4 bits rows are a multiple of the group"
    )
    fused: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, ...]] = (8, 16)
    uncut: ClassVar[frozenset[str]] = CONVOLUTIONS  # its blocks are of rows, which are three weights long there

    group_size: int = 128

    # -- in ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> Any:
        """Return a search state from a checkpoint, or from a JSON file whose formats are written as text.

        Raises
        ------
        FileError
            Where it is no search state.
        MissingPackageError
            Where a checkpoint is given and ModelOpt or torch is not installed.
        """
        path = self.only(paths)
        if path.suffix == ".json":
            return read_json(path, infinite=True)
        if not os.path.exists(path):
            raise FileError("there is no such file", where=str(path))
        quantization = need("modelopt.torch.quantization.algorithms", "a ModelOpt checkpoint", "nvidia-modelopt")
        torch = need("torch", "a ModelOpt checkpoint", "torch")
        try:
            # Only the types that a search state holds are let in.
            with torch.serialization.safe_globals([quantization.QuantRecipe]):
                return need("modelopt.torch.utils", "a ModelOpt checkpoint", "nvidia-modelopt").safe_load(path)
        except Exception as error:  # torch raises RuntimeError, UnpicklingError and more
            raise FileError(f"is not a ModelOpt checkpoint: {first_line(error)}", where=str(path)) from None

    def problem(self, scores: Mapping[str, Any]) -> Problem:
        """Return the problem of a search state.

        Raises
        ------
        FileError
            Where there are no scores, or not as many as formats.
        """
        state = typed(dict(scores) if isinstance(scores, Mapping) else scores, _State)
        if not state.candidate_stats:
            raise FileError("has no scores", where="candidate_stats")
        rows = list(state.candidate_stats.items())
        names = [name.removesuffix(_SUFFIX) for name, _ in rows]
        for name, (_, row) in zip(names, rows, strict=True):
            if not len(row.costs) == len(row.scores) == len(row.formats) > 0:
                raise FileError(
                    "must have as many costs as scores as formats",
                    where=name,
                    value=(len(row.costs), len(row.scores), len(row.formats)),
                )
            labels = [_label(recipe) for recipe in row.formats]
            if len(set(labels)) < len(labels):
                raise FileError("has a format twice", where=f"{name}: formats", value=labels)
        modules = [row.module_names for _, row in rows]
        groups = GroupNames.explicit(names, [m[0] if len(m) == 1 else n for m, n in zip(modules, names, strict=True)])
        cost, scored = allowed_tables(
            table([[_UNCOMPRESSED_BITS * effective for effective in row.costs] for _, row in rows], names, "costs"),
            table([row.scores for _, row in rows], names, "scores"),
        )
        damage, note = shifted(scored, groups)
        sizes = _sizes([row for _, row in rows], names)
        problem = Problem(
            names=groups,
            candidates=gather_sets(
                [tuple(cost[k, : len(row.costs)] / sizes[k]) for k, (_, row) in enumerate(rows)],
                [tuple(_label(recipe) for recipe in row.formats) for _, row in rows],
            ),
            damage=DamageTable(damage),
            sizes=sizes,
            costs=(TableCost.from_array(whole(cost), name="bits", unit="bit", source="ModelOpt: effective bits"),),
            objective={"bits": 1},
            metric=f"modelopt {state.method or ''}".strip(),
            damage_unit="auto_quantize score",
            provenance=note,
        )
        return unmeasured_zeros(problem)

    # -- out ---------------------------------------------------------------------------------------------------------

    def solved(self, state: Mapping[str, Any], allocation: Allocation) -> dict[str, Any]:
        """Return the search state that the allocation was read from, with the allocation as its best recipe.

        Raises
        ------
        AllocationError
            Where the allocation was not made from this state, or has no answer.
        """
        stats = state["candidate_stats"]
        names = [name.removesuffix(_SUFFIX) for name in stats]
        if names != list(allocation.problem.names):
            raise AllocationError("does not belong to this search state", where=self.name)
        choice = allocation._need().tolist()
        recipe = {name: scored["formats"][k] for (name, scored), k in zip(stats.items(), choice, strict=True)}
        bits = sum(scored["costs"][k] for scored, k in zip(stats.values(), choice, strict=True)) * _UNCOMPRESSED_BITS
        best = {
            "recipe": recipe,
            "constraints": {"effective_bits": bits / int(allocation.problem.sizes.sum())},
            "score": allocation.damage,
            "is_satisfied": True,
        }
        return dict(state) | {"best": best}

    def load_choice(self, path: Path) -> Any:
        return self.load([path])

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return the best recipe of a search state.

        Raises
        ------
        FileError
            Where it has none.
        """
        best = typed(configuration, _Chosen).best
        recipe = best.recipe if best else {}
        if not recipe:
            raise FileError("has no best recipe", where="best", hint="auto_quantize writes it once its search is done")
        return {name.removesuffix(_SUFFIX): (_label(chosen),) for name, chosen in recipe.items()}

    def precisions(self) -> tuple[Precision, ...]:
        return (
            Precision("4", 4, {"num_bits": 4, "block_sizes": {"-1": self.group_size}}, self.group_size, 32),
            Precision("8", 8, {"num_bits": 8, "axis": 0}),
            Precision("FP8", 8, {"num_bits": [4, 3], "axis": None}, on_grid=False),
            Precision("NVFP4", 4, {"num_bits": [2, 1], "block_sizes": _NVFP4}, 16, 8, on_grid=False),
            LEFT_ALONE,
        )

    def config(self, allocation: Allocation) -> dict[str, Any]:
        entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
        for layer in self.layers(allocation):
            module = layer.name.removesuffix(".weight")
            if layer.weight.entry is not None:
                entries.append(
                    {"quantizer_name": f"{module}.weight_quantizer", "cfg": layer.weight.entry, "enable": True}
                )
            if layer.input_bits == 8:
                cfg = {"num_bits": 8, "axis": None}
                entries.append({"quantizer_name": f"{module}.input_quantizer", "cfg": cfg, "enable": True})
        return {"quant_cfg": entries, "algorithm": "max"}

    def native(self, allocation: Allocation) -> Any:
        """Return the configuration as ``modelopt.torch.quantization.config.QuantizeConfig`` has validated it."""
        peer = need("modelopt.torch.quantization.config", "a QuantizeConfig", "nvidia-modelopt")
        config = self.config(allocation)
        for entry in config["quant_cfg"]:
            if "cfg" in entry:
                entry["cfg"] = _typed(entry["cfg"])
        return peer.QuantizeConfig(**config).model_dump(exclude_unset=True)


_NVFP4 = {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}


def _typed(value: Any) -> Any:
    """Return JSON with what it lacks: exponent and mantissa as a tuple, axes as integers."""
    if isinstance(value, dict):
        return {int(k) if k.lstrip("-").isdigit() else k: _typed(item) for k, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _sizes(rows: Sequence[_Scores], names: Sequence[str]) -> IntArray:
    """Return the number of weights (G,): a layer that is not compressed costs one a weight."""
    full = [
        max(filter(math.isfinite, row.costs), default=0.0) if row.uncompressed_cost is None else row.uncompressed_cost
        for row in rows
    ]
    for name, row, most in zip(names, rows, full, strict=True):
        if not 0 <= most < 2**53:
            where = f"{name}: {'costs' if row.uncompressed_cost is None else 'uncompressed_cost'}"
            raise FileError("must be a number of weights", where=where, value=most)
    return np.maximum(np.rint(full), 1).astype(np.int64)


def _label(recipe: Any) -> str:
    """Return what ModelOpt calls a format, without its effective bits."""
    return re.sub(r"\(effective-bits.*\)$", "", str(recipe))


class _Scores(msgspec.Struct):
    formats: list[Any]
    scores: list[float]
    costs: list[float]
    module_names: list[str] = []
    uncompressed_cost: float | None = None


class _Best(msgspec.Struct):
    recipe: dict[str, Any] = {}


class _Chosen(msgspec.Struct):
    """What a search state says that it chose."""

    best: _Best | None = None


class _State(msgspec.Struct):
    """What is needed of a search state."""

    candidate_stats: dict[str, _Scores]
    method: str | None = None
