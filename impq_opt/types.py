"""The arrays that pass between modules, by what they hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "ColumnArray", "FloatArray", "IntArray", "KindArray"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
KindArray = npt.NDArray[np.int8]
ColumnArray = npt.NDArray[np.uint16]
