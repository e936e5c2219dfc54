# ruff: noqa: PLR0917  # C functions take what they take
"""What the compiled modules offer, for the type checker; what each function does stands above it in C.

Sums of float64 come as (integer, exponent); a total is a cost and such a sum.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from impq_opt.exactness.native import Dyadic
from impq_opt.types import BoolArray, FloatArray, IntArray
from impq_opt.types import ColumnArray as ShortColumns

__all__ = ["CoreModule", "Dyadic", "Flag", "KernelModule", "RawTotal", "StarsModule"]

RawTotal = tuple[int, Dyadic]
Flag = npt.NDArray[np.uint8]


class KernelModule(Protocol):
    """``_kernel.c``: passes over tables, and hulls."""

    LIMITS: dict[str, int]

    def scan(
        self,
        cost: IntArray,
        damage: FloatArray,
        levels: IntArray | None,
        scales: FloatArray | None,
        widths: IntArray | None,
        rows: int,
        columns: int,
        low: float,
        high: float,
        threshold: float,
        guard: float,
        best: ShortColumns,
        opened: IntArray,
        pool_cost: IntArray,
        pool_damage: FloatArray,
        room: int,
        threads: int,
        /,
    ) -> tuple[int, int, RawTotal, RawTotal, RawTotal]: ...

    def gather(
        self,
        cost: IntArray,
        damage: FloatArray,
        levels: IntArray | None,
        scales: FloatArray | None,
        widths: IntArray | None,
        rows: int,
        columns: int,
        places: IntArray,
        count: int,
        cost_out: IntArray,
        damage_out: FloatArray,
        /,
    ) -> None: ...

    def seconds(
        self,
        cost: IntArray,
        damage: FloatArray,
        rows: int,
        columns: int,
        price: float,
        guard: float,
        chosen: ShortColumns,
        first: FloatArray,
        behind: FloatArray,
        own: FloatArray,
        /,
    ) -> RawTotal: ...

    def divisor(self, values: IntArray, widths: IntArray | None, rows: int, columns: int, threads: int, /) -> int: ...

    def hull(
        self,
        cost: IntArray,
        damage: FloatArray | IntArray,
        whole: bool,
        rows: int,
        columns: int,
        start: IntArray,
        group: IntArray,
        to: IntArray,
        step_cost: IntArray,
        step_damage: FloatArray | IntArray,
        ratio: FloatArray,
        scratch: IntArray | None,
        /,
    ) -> int: ...

    def order(self, keys: FloatArray, out: IntArray, count: int, scratch: IntArray, threads: int, /) -> None: ...

    def sweep(
        self,
        order: IntArray,
        cost: IntArray,
        damage: FloatArray,
        steps: int,
        first: int,
        quantum: float,
        least: float,
        costs: FloatArray,
        damages: FloatArray,
        /,
    ) -> None: ...


class CoreModule(Protocol):
    """``_core.c``: the core in integers, and its dynamic program."""

    LIMITS: dict[str, int]

    def closest(self, behind: FloatArray, rows: int, limit: float, most: int, out: IntArray, /) -> int: ...

    def within(
        self,
        cost: IntArray,
        damage: FloatArray,
        pool_rows: int,
        first: FloatArray,
        rows: IntArray,
        groups: int,
        columns: int,
        price: float,
        limit: float,
        guard: float,
        prohibitive: int,
        cost_out: IntArray,
        damage_out: FloatArray,
        kept: BoolArray,
        /,
    ) -> None: ...

    def relative(
        self,
        cost: IntArray,
        damage: FloatArray,
        kept: BoolArray,
        base: IntArray,
        groups: int,
        columns: int,
        most: float,
        bits: int,
        unit_bits: int,
        cost_out: IntArray,
        damage_out: IntArray,
        /,
    ) -> tuple[int, int, int, Dyadic]: ...

    def exchange(
        self,
        cost: IntArray,
        damage: FloatArray,
        pool_rows: int,
        rows: IntArray,
        base: IntArray,
        columns: IntArray,
        kept: BoolArray | None,
        groups: int,
        width: int,
        moved: IntArray,
        to: IntArray,
        /,
    ) -> tuple[int, int, Dyadic]: ...

    def search(
        self,
        gain: IntArray,
        need: IntArray,
        groups: int,
        columns: int,
        room: int,
        target: int,
        doubt: int,
        most_states: int,
        seconds: float,
        memory: float,
        working: float,
        kept: float,
        margin: float,
        most_doubtful: int,
        best: IntArray,
        interrupt: Flag,
        /,
    ) -> tuple[int, int, int, int, list[tuple[int, bytes]]]: ...


class StarsModule(Protocol):
    """``_stars.c``: the leaves of stars at some prices."""

    LIMITS: dict[str, int]

    def minima(
        self,
        rows: int,
        slopes: int,
        leaves: int,
        columns: int,
        centres: int,
        tables: FloatArray,
        weights: FloatArray,
        coefficients: FloatArray,
        slope_weights: FloatArray,
        leaf_levels: FloatArray,
        owner: IntArray,
        centre_levels: FloatArray,
        allowed: BoolArray,
        sums: FloatArray,
        /,
    ) -> None: ...

    def choices(
        self,
        rows: int,
        slopes: int,
        leaves: int,
        columns: int,
        centres: int,
        tables: FloatArray,
        weights: FloatArray,
        coefficients: FloatArray,
        slope_weights: FloatArray,
        leaf_levels: FloatArray,
        owner: IntArray,
        centre_levels: FloatArray,
        column: IntArray,
        choice: IntArray,
        /,
    ) -> None: ...
