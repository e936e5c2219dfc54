"""What every encoding of weights has: blocks of a row, the bits that they take, and how a matrix is rounded by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from impq_opt.errors import ProblemError

__all__ = ["Encoding", "Family", "Rows"]

Rows = npt.NDArray[np.float32]
"""Weights (rows, length) as a matrix of a network has them: one row an output, and the row is what is summed over."""


@dataclass(frozen=True)
class Encoding(ABC):
    """One way in which an engine stores a matrix of weights.

    Parameters
    ----------
    name : str
        What it is called as a candidate, such as ``"q4_k"`` or ``"nvfp4"``.
    block : int
        Consecutive weights of a row that are coded together; a row is a whole number of blocks.
    block_bits : int
        Bits of a block: codes, scales, minima and zero points.
    row_bits : int
        Bits of what each row has one of, such as a scale of an output channel.
    matrix_bits : int
        Bits of what the whole matrix has one of.
    """

    name: str
    block: int
    block_bits: int
    row_bits: int = 0
    matrix_bits: int = 0

    @property
    def bits(self) -> Fraction:
        """Bits of a weight, exactly, with all that stands in its block, and without what a row or a matrix has one of.

        Of every encoding that ships it is a float64, too, since blocks are powers of two.
        """
        return Fraction(self.block_bits, self.block)

    def holds(self, length: int) -> bool:
        """Return whether rows of ``length`` weights are a whole number of blocks; 0 is a length that nobody knows."""
        return length % self.block == 0

    def size(self, rows: int, length: int) -> int:
        """Return the bits of a matrix (rows, length), exactly."""
        return rows * (length // self.block * self.block_bits + self.row_bits) + self.matrix_bits

    def round(self, rows: npt.ArrayLike) -> Rows:
        """Return what the matrix (rows, length) is after it was stored and read again, as float32.

        Raises
        ------
        ProblemError
            Where it is no matrix of finite numbers, or a row is no whole number of blocks.
        MissingPackageError
            Where the package that has the reference code is not installed.
        """
        return self._round(self.read(rows))

    @abstractmethod
    def _round(self, rows: Rows) -> Rows:
        """Return the matrix (rows, length), which was checked, rounded."""

    def read(self, rows: npt.ArrayLike) -> Rows:
        """Return a matrix that this encoding can hold, as float32.

        Raises
        ------
        ProblemError
            As :meth:`round` does.
        """
        array = np.ascontiguousarray(rows, dtype=np.float32)
        if array.ndim != 2 or array.size == 0:
            raise ProblemError("must be a matrix of rows", where=self.name, value=array.shape)
        if not self.holds(array.shape[1]):
            raise ProblemError(
                f"holds rows of a multiple of {self.block} weights", where=self.name, value=array.shape[1]
            )
        if not np.isfinite(array).all():
            raise ProblemError("holds finite weights", where=self.name, value="inf or nan")
        return array

    def blocks(self, rows: Rows) -> Rows:
        """Return rows as blocks (rows, length / block, block)."""
        return rows.reshape(len(rows), -1, self.block)


class Family(ABC):
    """Encodings that one specification or tool defines. Its fields, if it has any, are options."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]  # where the encodings are defined
    package: ClassVar[str] = ""  # what to install for the reference code

    @abstractmethod
    def encodings(self) -> tuple[Encoding, ...]:
        """Return all of them, in the order in which they are told."""
