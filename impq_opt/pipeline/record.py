"""What came of it, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from impq_opt.documents.reading import read_json
from impq_opt.errors import FileError
from impq_opt.pipeline.differences import Difference
from impq_opt.problem.allocation import Allocation
from impq_opt.validate.windows import Language

__all__ = ["RESULT", "Judged", "Outcome", "read_outcome"]

RESULT = "result.json"


@dataclass(frozen=True)
class Judged:
    """One network, on samples that nothing was measured, calibrated or chosen on.

    Parameters
    ----------
    name : str
        ``float``, ``allocated``, or ``uniform N``.
    size : int
        Bytes of its file.
    weight_bits : float
        Mean precision of the quantized weights.
    agreement : float
        Share of samples that it decides as the float network does.
    accuracy : float, optional
        Where there are labels.
    loss : Difference, optional
        By how much the float network is oftener right.
    language : Language, optional
        Of a language model, whose agreement is by tokens: divergence and perplexity, with intervals over windows.
    """

    name: str
    size: int
    weight_bits: float
    agreement: float
    accuracy: float | None = None
    loss: Difference | None = None
    language: Language | None = None


@dataclass(frozen=True)
class Outcome:
    """The quantized network, and what is known of it.

    Parameters
    ----------
    folder : Path
        Holds problem, allocation, packed network, program, report and record.
    chosen : str
        ``allocated``, or ``uniform N`` where that was closer to the float network on samples that calibration had not
        seen.
    met : bool
        The goal is met: always where it is a size; a loss of accuracy where the data tell so.
    reason : str
        Why it is not; "" where it is.
    rows : sequence of Judged
        The float network, the allocated one, and the uniform one of at most its size.
    ahead : Difference, optional
        By how much the allocated network is oftener right than the uniform one; where labels are missing, decides as
        the float network oftener.
    samples : int
        That judge.
    origin : str
        What these samples are.
    calibration : sequence of mapping
        What each step did to the chosen network.
    notes : sequence of str
    seconds : mapping of str to float
        Processor time of each part.
    allocation : Allocation
    """

    folder: Path
    chosen: str
    met: bool
    reason: str
    rows: Sequence[Judged]
    ahead: Difference | None
    samples: int
    origin: str
    calibration: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    seconds: Mapping[str, float]
    allocation: Allocation = field(compare=False, repr=False)

    def to_dict(self, confidence: float) -> dict[str, Any]:
        """Return it as plain values, differences with their intervals; :func:`read_outcome` reads them."""

        def told(value: Difference | None) -> dict[str, Any] | None:
            return None if value is None else asdict(value) | {
                "value": value.value, "interval": value.interval(confidence),
            }  # fmt: skip

        return {
            "chosen": self.chosen,
            "met": self.met,
            "reason": self.reason,
            "rows": [asdict(row) | {"loss": told(row.loss)} for row in self.rows],
            "ahead": told(self.ahead),
            "confidence": confidence,
            "samples": self.samples,
            "origin": self.origin,
            "calibration": [dict(step) for step in self.calibration],
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
            "files": sorted(path.name for path in self.folder.iterdir() if path.is_file()),
        }


def read_outcome(folder: Path, allocation: Allocation) -> Outcome:
    """Return the outcome that the record of a folder tells.

    Raises
    ------
    FileError
        It is no such record.
    """
    told = read_json(folder / RESULT, infinite=True)

    def difference(plain: Mapping[str, Any] | None) -> Difference | None:
        return None if plain is None else Difference(*(plain[part.name] for part in fields(Difference)))

    try:
        rows = [
            Judged(**row | {"loss": difference(row["loss"]), "language": Language.read(row.get("language"))})
            for row in told["rows"]
        ]
        known = {part.name: told[part.name] for part in fields(Outcome) if part.name in told}
        others: dict[str, Any] = {"rows": rows, "ahead": difference(told["ahead"])}
        return Outcome(**known | others, folder=folder, allocation=allocation)
    except (KeyError, TypeError):
        raise FileError("is no record of a run", where=str(folder / RESULT)) from None
