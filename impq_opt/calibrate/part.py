"""What a part of calibration is: a name and options, and what it changes in a quantized network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from impq_opt.calibrate.work import Work
from impq_opt.registry import spec_of

__all__ = ["Calibration", "Change"]


@dataclass(frozen=True)
class Change:
    """What a part did.

    Parameters
    ----------
    changed : tuple of str
        The layers and norms that it changed, by the names of their modules or weights.
    notes : tuple of str
        What it left alone and why, a sentence each.
    refused : str
        Why it changed nothing although there was something to change; "" where it did not refuse.
    """

    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""


class Calibration(ABC):
    """One thing that is done to a quantized network: a frozen dataclass whose fields are its options.

    It changes values alone, in place: of parameters and buffers, never their shapes or types, and nothing of the float
    network; and it may have quantizers hold their grids. It reads no labels. Whether what it did stays is not its own
    decision: :func:`~impq_opt.calibrate.calibrate` holds the network against the float network before and after.

    Attributes
    ----------
    name, summary, source : str
        ``source`` is the paper that it follows.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

    @property
    def spec(self) -> str:
        """Name and options that are not the usual ones, as ``load_calibration`` reads them."""
        return spec_of(self)

    @abstractmethod
    def apply(self, work: Work) -> Change:
        """Change ``work.quantized`` in place, by ``work.batches()`` and the float network; return what was changed.

        Called without gradients.
        """
