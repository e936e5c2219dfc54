"""The arrays that pass between modules, by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "ColumnArray", "FloatArray", "IntArray", "KindArray", "Real", "Table"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
KindArray = npt.NDArray[np.int8]
ColumnArray = npt.NDArray[np.uint16]

# One number, and a table of them a row a group, as callers have them: rows may differ in length.
Real = float | Fraction | Decimal
Table = npt.ArrayLike | Sequence[Any]
