"""What is asked of a data set."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

__all__ = ["Samples"]


class Samples(Protocol):
    """What is asked of a data set; :class:`impq_opt.data.Dataset` is one."""

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> tuple[Any, Tensor | None]:
        """Return inputs (m, ...), one tensor or several, and labels (m,) of the rows ``index`` (m,)."""
