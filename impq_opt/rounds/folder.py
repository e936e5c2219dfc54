"""The files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from impq_opt.errors import FileError
from impq_opt.files import load_problem
from impq_opt.problem.problem import Problem
from impq_opt.quantize import unpack
from impq_opt.rounds.checkpoint import load_state

__all__ = ["Folder", "trained_state"]


@dataclass(frozen=True)
class Folder:
    """A folder with a checkpoint, a log, and for each round its problem and its packed network."""

    path: Path

    def make(self) -> None:
        """Make the folder where it is missing; raise FileError where it cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot be made: {error.strerror}", where=str(self.path)) from None

    def problem_path(self, number: int) -> Path:
        """Return where the problem of a round is."""
        return self.path / f"round-{number:02}.problem.toml"

    def packed_path(self, number: int) -> Path:
        """Return where the packed network of a round is."""
        return self.path / f"round-{number:02}.packed.safetensors"

    def problem(self, number: int) -> Problem:
        """Return the problem that was measured for a round."""
        return load_problem(self.problem_path(number))


def trained_state(folder: str | Path) -> dict[str, Tensor]:
    """Return the state dict of the float network with the values that a run that has ended computes with.

    Raises
    ------
    FileError
        No run has ended there.
    """
    kept = load_state(Path(folder))
    if kept is None or not kept[0].done:
        raise FileError("holds no run that has ended", where=str(folder))
    packed = Folder(Path(folder)).packed_path(kept[0].records[-1].round)
    state = unpack(packed).state if packed.exists() else kept[0].network
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}
