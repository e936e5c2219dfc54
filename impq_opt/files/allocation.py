"""An allocation's file: JSON."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from impq_opt.documents.reading import read_json
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError, InputError
from impq_opt.files import allocation_record as answers
from impq_opt.files.allocation_record import AllocationRecord, allocation_from_record
from impq_opt.files.reading import check_format, convert, mistaken
from impq_opt.files.revision import Revision
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["allocation_bytes", "load_allocation", "save_allocation"]


def save_allocation(
    allocation: Allocation,
    path: str | os.PathLike[str],
    *,
    base: Problem | None = None,
    revision: Revision | None = None,
) -> None:
    """Write ``allocation`` to ``path`` as JSON.

    Parameters
    ----------
    allocation : Allocation
    path : path
    base : Problem, optional
        The problem as it stands in its file, where ``allocation`` answers a revision of it.
    revision : Revision, optional
        What was revised, so that the answer can be checked against the file of ``base``.
    """
    atomic_write(path, allocation_bytes(allocation, base=base, revision=revision))


def allocation_bytes(allocation: Allocation, *, base: Problem | None = None, revision: Revision | None = None) -> bytes:
    """Return what :func:`save_allocation` writes."""
    record = answers.allocation_record(allocation, base=base, revision=revision)
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def load_allocation(path: str | os.PathLike[str], problem: Problem) -> Allocation:
    """Read an answer to ``problem``. What it claims is kept as claimed: :func:`impq_opt.verify` checks it.

    Raises
    ------
    FileError
        Where the file is missing, truncated or foreign.
    AllocationError
        Where it is an answer to another problem, or names groups or precisions that ``problem`` does not have.
    """
    path = Path(path)
    try:
        document = read_json(path)
    except FileError as error:
        known = mistaken(path, answers.FORMAT) if os.path.isfile(path) else None
        raise known or error from None
    check_format(document, answers.FORMAT, path)
    record = convert(document, AllocationRecord, path.name)
    try:
        return allocation_from_record(record, problem)
    except InputError as error:
        raise error.within(path.name) from None
