"""What a back end returns, and how it is held against the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impq_opt.compile.program import Program
from impq_opt.compile.reference import run

__all__ = ["Compiled", "Ran", "Size", "ran"]


@dataclass(frozen=True)
class Size:
    """Bytes of one kind: what the allocation promised, None where it says nothing, and what the files have."""

    name: str
    promised: int | None
    real: int


@dataclass(frozen=True)
class Compiled:
    """What a program was written as.

    Parameters
    ----------
    files : mapping of str to bytes
        By name.
    sizes : tuple of Size
    notes : tuple of str
        What a user should know of the files.
    run : callable, optional
        From real inputs (n, ...) to logits in float32, as the files put them out; None where nothing here runs them.
    """

    files: Mapping[str, bytes]
    sizes: tuple[Size, ...]
    notes: tuple[str, ...] = ()
    run: Callable[[npt.ArrayLike], npt.NDArray[np.floating]] | None = None


@dataclass(frozen=True)
class Ran:
    """What the files put out beside the reference.

    Parameters
    ----------
    samples : int
    equal : int
        Samples whose logits are the reference's in every bit.
    alike : int
        Decisions that are the same.
    """

    samples: int
    equal: int
    alike: int


def ran(program: Program, compiled: Compiled, samples: npt.ArrayLike) -> Ran | None:
    """Return what the files put out for samples (n, ...) beside the reference; None where nothing here runs them."""
    if compiled.run is None:
        return None
    given, output = np.asarray(samples, dtype=np.float32), program.tensors[program.output]
    whole = run(program, program.encode(given))
    expected = (whole - output.zero).astype(np.float32) * np.float32(output.scale)
    found = compiled.run(given)
    equal = int((found == expected).all(axis=1).sum())
    return Ran(len(given), equal, int((found.argmax(1) == whole.argmax(1)).sum()))
