"""What a back end returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Compiled", "Size"]


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
    """

    files: Mapping[str, bytes]
    sizes: tuple[Size, ...]
