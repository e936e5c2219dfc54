"""Declared costs in problem files: heads in the TOML, numbers in groups, in arrays, or in a CSV file beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.costs import COSTS, CostTerm, TableCost
from impq_opt.costs.lookup import LookupCost
from impq_opt.documents.numbers import read_exact
from impq_opt.errors import FileError, ProblemError
from impq_opt.problem.problem import Problem

__all__ = [
    "CostRecord",
    "cost_array_types",
    "cost_arrays",
    "cost_from_arrays",
    "cost_from_csv",
    "cost_head",
    "table_cost",
]

Arrays = Mapping[str, npt.NDArray[Any]]

# With sums below 2^61 quanta, costs stay within float64.
_COARSEST = Fraction(2**960)


class CostRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A declared cost; its numbers stand in the groups, in arrays named after it, or in the file ``csv``."""

    name: str
    unit: str = ""
    source: str = ""
    quantum: str | None = None
    rounding: float = 0.0
    fixed: int = 0
    csv: str | None = None


def cost_array_types(name: str) -> dict[str, tuple[str, int]]:
    """Return name -> (type, dimensions) of the arrays that may belong to cost ``name``."""
    return {
        f"cost.{name}": ("int64", 2),
        f"pairs.{name}.left": ("int64", 1),
        f"pairs.{name}.right": ("int64", 1),
        f"pairs.{name}.values": ("int64", 3),
    }


# -- out of a file -----------------------------------------------------------------------------------------------


def cost_from_arrays(cost: CostRecord, arrays: Arrays, width: int) -> CostTerm:
    """Return the cost whose arrays are ``cost.NAME`` and, for pairs of groups, ``pairs.NAME.*``.

    Raises
    ------
    ProblemError
        Where arrays are missing, or are not of the shape and type that the cost has.
    """
    names = list(cost_array_types(cost.name))
    if names[0] not in arrays:
        raise ProblemError("the arrays file lacks a cost", where="arrays", value=names[0])
    values = arrays[names[0]]
    if not any(name in arrays for name in names[1:]):
        return table_cost(cost, values)
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise ProblemError("the arrays file lacks a part of a cost", where="arrays", value=lacking[0])
    left, right, pairs = (arrays[name] for name in names[1:])
    count = len(arrays["sizes"])
    ends = np.concatenate([left, right])
    fits = len(left) == len(right) == len(pairs) and values.shape == (count, width)
    if not fits or pairs.shape[1:] != (width, width) or bool(((ends < 0) | (ends >= count)).any()):
        raise ProblemError("must be pairs of groups, each with a value by candidates", where=f"arrays: {names[3]}")
    quantum = _quantum(cost) or Fraction(1)
    return LookupCost(values, left, right, pairs, quantum, cost.name, cost.unit, cost.source or "given as a table")


def cost_from_csv(cost: CostRecord, folder: Path, problem: Problem) -> CostTerm:
    """Return the cost that a CSV file beside the problem file gives; see :meth:`LookupCost.from_csv`.

    Raises
    ------
    ProblemError
        Where the file is not beside the problem's, or its table does not fit the problem.
    """
    assert cost.csv is not None
    _own_name(cost)
    if Path(cost.csv).name != cost.csv:
        raise ProblemError("must be a file beside the problem file", where=f"costs.{cost.name}.csv", value=cost.csv)
    return LookupCost.from_csv(folder / cost.csv, problem, name=cost.name, unit=cost.unit, source=cost.source)


def table_cost(cost: CostRecord, values: npt.NDArray[Any]) -> TableCost:
    """Return the cost with these values (G, K): whole quanta where a quantum is given, else numbers of its unit.

    Raises
    ------
    ProblemError
        Where the name is a built-in cost's, or the values are not as the quantum says.
    """
    _own_name(cost)
    source, quantum = cost.source or "given as a table", _quantum(cost)
    if quantum is None:
        term = TableCost.from_array(values, name=cost.name, unit=cost.unit, source=source)
        return replace(term, fixed=cost.fixed) if cost.fixed else term
    if values.dtype.kind != "i":
        raise ProblemError("must be whole numbers of the quantum", where=f"costs.{cost.name}", value=values.dtype.name)
    if not 0 <= cost.rounding < math.inf:
        raise ProblemError("must be finite and >= 0", where=f"costs.{cost.name}.rounding", value=cost.rounding)
    whole = values.astype(np.int64, copy=False)
    return TableCost(whole, quantum, cost.name, cost.unit, source, cost.rounding, cost.fixed)


def _own_name(cost: CostRecord) -> None:
    if cost.name in COSTS:
        raise ProblemError("is the name of a built-in cost", where=f"costs.{cost.name}", value=cost.name)


def _quantum(cost: CostRecord) -> Fraction | None:
    if cost.quantum is None:
        return None
    where = f"costs.{cost.name}.quantum"
    quantum = read_exact(cost.quantum, where, hint="a fraction such as 1/1000")
    if not 0 < quantum <= _COARSEST:
        raise ProblemError("must be positive, and at most 2^960", where=where, value=cost.quantum)
    return quantum


# -- into a file -------------------------------------------------------------------------------------------------


def cost_head(term: CostTerm) -> dict[str, Any]:
    """Return what the TOML says about a cost.

    Raises
    ------
    FileError
        Where a cost of this kind has no file form.
    """
    if not isinstance(term, (TableCost, LookupCost)):
        raise FileError("a cost of this kind has no file form", where=f"costs.{term.name}", value=type(term).__name__)
    head: dict[str, Any] = {"name": term.name, "unit": term.unit, "source": term.source, "quantum": str(term.quantum)}
    if not isinstance(term, TableCost):
        return head
    return head | {name: value for name in ("rounding", "fixed") if (value := getattr(term, name))}


def cost_arrays(term: CostTerm) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a cost, by name."""
    assert isinstance(term, (TableCost, LookupCost))
    names = list(cost_array_types(term.name))
    if isinstance(term, TableCost):
        return {names[0]: term.values}
    return dict(zip(names, (term.values, term.left, term.right, term.pair_values), strict=True))
