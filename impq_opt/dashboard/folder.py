"""What lies in a folder: problems, allocations and runs, told by what files say and read again when they change."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from impq_opt import problems
from impq_opt.costs import cost_named, format_quantity
from impq_opt.documents.reading import read_text, read_toml
from impq_opt.errors import FileError, ImpqError, InputError, first_line
from impq_opt.files import Revision, load_allocation, load_problem
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.report.layers import LayerIndex
from impq_opt.rounds.record import LOG, Record, read_records
from impq_opt.types import FloatArray

__all__ = ["Folder", "Item", "Subject"]

# Files that are looked at, and bytes at the start of one that say what it is.
_MOST_FILES = 20_000
_HEAD = 1 << 16
# A file that names no format is looked into up to here, to tell a broken one from somebody else's.
_SMALL = 1 << 20
# Groups of all the problems that are kept in memory.
_MOST_GROUPS = 4_000_000
_MOST_SUBJECTS = 12

_FORMATS = {".toml": (b"impq-opt problem", "problem"), ".json": (b"impq-opt allocation", "allocation")}

# What tells whether a file is still the one that was read: inode, size and time of its last change.
_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Item:
    """One thing in the folder.

    Parameters
    ----------
    key : str
        What it is called in addresses: a digest of its path.
    kind : {"problem", "allocation", "run", "broken"}
    path : Path
        A file, or the folder of a run.
    shown : str
        The path inside the folder.
    stamp : tuple
        Changes with its files.
    facts : mapping
        What the list shows of it.
    error : str
        Why it cannot be read, in a sentence.
    """

    key: str
    kind: str
    path: Path
    shown: str
    stamp: _Stamp = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """What questions are put to.

    Parameters
    ----------
    item : Item
        A problem or an allocation.
    base : Problem
        As its file has it.
    revision : Revision
        What the allocation's file changed on it.
    answer : Allocation, optional
        As the file states it.
    mean_bits : ndarray (L,), optional
        Mean precision of each layer in the allocation, or in the round that the problem was measured for.
    """

    item: Item
    base: Problem
    revision: Revision = field(default_factory=Revision)
    answer: Allocation | None = None
    mean_bits: FloatArray | None = None


class _Stated(msgspec.Struct):
    """What is read of an allocation's file for the list."""

    problem_digest: str
    status: str
    minimize: dict[str, Any]
    solver: str
    cost: float | None = None
    damage: float | None = None
    bound: float | None = None
    revision: Revision | None = None


class Folder:
    """The items of a folder and of those in it. Links that lead out of it are not followed.

    Parameters
    ----------
    root : Path

    Raises
    ------
    FileError
        Where it is no folder, or cannot be read.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        try:
            self.root = Path(root).resolve(strict=True)
            with os.scandir(self.root):
                pass
        except FileNotFoundError:
            raise FileError("there is no such folder", where=str(root)) from None
        except NotADirectoryError:
            raise FileError(
                "is a file, not a folder", where=str(root), hint="name the folder that it lies in"
            ) from None
        except (OSError, ValueError, RuntimeError) as error:
            raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(root)) from None
        self.left_out = 0
        self._items: dict[str, Item] = {}
        self._foreign: dict[Path, _Stamp] = {}  # somebody else's files, which are not read at every look
        self._problems: OrderedDict[str, tuple[_Stamp, Problem]] = OrderedDict()
        self._subjects: OrderedDict[str, tuple[Subject, list[Item]]] = OrderedDict()
        self._named: dict[Path, tuple[tuple[int, int, int], list[Path]]] = {}
        self._gallery: dict[str, str] | None = None
        self._turn = threading.RLock()

    # -- looking ---------------------------------------------------------------------------------------------------

    def items(self) -> list[Item]:
        """Return what is in the folder now; only what changed since the last look is read again."""
        with self._turn:
            found: dict[str, Item] = {}
            for path in self._paths():
                item = self._item(path)
                if item is not None:
                    found[item.key] = item
            self._items = found
            return sorted(found.values(), key=lambda item: item.shown)

    def item(self, key: str) -> Item:
        """Return the item called ``key`` as it is now.

        Raises
        ------
        FileError
            Where there is none, any more.
        """
        with self._turn:
            known = self._items.get(key)
            item = None if known is None else self._item(_told_by(known))
            if item is None:
                raise FileError("is not in the folder any more", where="" if known is None else known.shown)
            self._items[key] = item
            return item

    def _key(self, place: Path) -> str:
        return hashlib.sha256(os.fsencode(place.relative_to(self.root).as_posix())).hexdigest()[:16]

    def _paths(self) -> Iterator[Path]:
        self.left_out = seen = 0
        for folder, inner, names in os.walk(self.root):
            inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "node_modules")
            for name in sorted(names):
                seen += 1
                if seen > _MOST_FILES:
                    self.left_out += 1
                elif name == LOG or (Path(name).suffix in _FORMATS and not name.startswith(".")):
                    yield Path(folder, name)

    def _item(self, path: Path) -> Item | None:
        """Return the item at ``path``, None where it is nobody's or somebody else's."""
        place = path.parent if path.name == LOG else path
        key, shown = self._key(place), place.relative_to(self.root).as_posix()
        shown = self.root.name if shown == "." else shown  # the folder is a run itself
        try:
            stamp = self._stamp(path)
        except FileError as error:
            return Item(key, "broken", place, shown, (), {}, str(error))
        if stamp is None or self._foreign.get(path) == stamp:
            return None
        before = self._items.get(key)
        if before is not None and before.stamp == stamp and before.path == place:
            return before
        try:
            kind = "run" if path.name == LOG else _kind(path)
            if kind is None:
                self._foreign[path] = stamp
                return None
            facts = {"problem": self._problem_facts, "allocation": self._allocation_facts, "run": _run_facts}[kind](
                path
            )
        except ImpqError as error:
            return Item(key, "broken", place, shown, stamp, {}, str(error))
        return Item(key, kind, place, shown, stamp, facts)

    def _stamp(self, path: Path) -> _Stamp | None:
        """Return the stamp of a file and of those that it names; None where it is no file.

        Raises
        ------
        FileError
            Where one of them leads out of the folder.
        """
        stamp = []
        for file in (path, *self._beside(path)):
            try:
                inside = file.resolve().is_relative_to(self.root)
                status = file.stat() if inside else None
            except (OSError, RuntimeError):  # RuntimeError: links in a circle
                if file is path:
                    return None
                continue  # whoever reads the problem says so
            if status is None:
                raise FileError("is a link that leads out of the folder", where=file.relative_to(self.root).as_posix())
            if stat.S_ISREG(status.st_mode):
                stamp.append(_mark(status))
            elif file is path:
                return None
        return tuple(stamp)

    def _beside(self, path: Path) -> list[Path]:
        """Return the files beside a problem's that it names: its arrays, and tables of costs."""
        if path.suffix != ".toml":
            return []
        try:
            mark, before = _mark(path.stat()), self._named.get(path)
            if before is not None and before[0] == mark:
                return before[1]
            if not path.resolve().is_relative_to(self.root) or not path.is_file():
                return []
            document = {} if _kind(path) is None else read_toml(path)
        except (InputError, OSError, RuntimeError):
            return []  # whoever reads the problem says so
        arrays, costs = document.get("arrays"), document.get("costs")
        names = [arrays.get("file")] if isinstance(arrays, dict) else []
        names += [cost.get("csv") for cost in costs if isinstance(cost, dict)] if isinstance(costs, list) else []
        files = [path.with_name(name) for name in names if isinstance(name, str) and name and Path(name).name == name]
        self._named[path] = mark, files
        return files

    # -- what the list shows ---------------------------------------------------------------------------------------

    def _problem_facts(self, path: Path) -> dict[str, Any]:
        problem = load_problem(path)
        self._keep(str(path), self._stamp(path) or (), problem)
        told = problem.provenance
        title = str(told.get("title") or told.get("description") or told.get("network") or "")
        return {
            "title": title,
            "groups": len(problem),
            "layers": len(set(problem.names.layers)),
            "metric": problem.metric,
            "minimize": " + ".join(problem.objective),
            "digest": problem.digest,
        }

    def _allocation_facts(self, path: Path) -> dict[str, Any]:
        stated = _stated(path)
        try:
            (name,) = stated.minimize
            cost = "" if stated.cost is None else format_quantity(stated.cost, cost_named(name).unit)
        except (ValueError, InputError):  # several costs, or one of the problem's own
            cost = "" if stated.cost is None else f"{stated.cost:g}"
        return {
            "status": stated.status,
            "solver": stated.solver,
            "cost": cost,
            "damage": stated.damage,
            "digest": stated.problem_digest,
        }

    # -- opening ---------------------------------------------------------------------------------------------------

    def subject(self, key: str) -> Subject:
        """Return the problem, or the allocation with its problem, that ``key`` means.

        Raises
        ------
        FileError
            Where it is neither, or cannot be read.
        AllocationError
            Where the allocation does not belong to the problem with its digest.
        """
        item = self.item(key)
        with self._turn:
            subject, rests_on = self._subjects.get(key, (None, []))
            if subject is None or subject.item != item or any(self._item(_told_by(one)) != one for one in rests_on):
                subject, rests_on = self._opened(item)
                self._subjects[key] = subject, rests_on
            self._subjects.move_to_end(key)
            while len(self._subjects) > _MOST_SUBJECTS:
                self._subjects.popitem(last=False)
        return subject

    def _opened(self, item: Item) -> tuple[Subject, list[Item]]:
        """Return the subject, and the other items that it rests on."""
        if item.kind == "problem":
            problem = self._problem(item)
            bits, runs = self._round_bits(item, problem)
            return Subject(item, problem, mean_bits=bits), runs
        if item.kind != "allocation":
            what = item.error or "is neither a problem nor an allocation"
            raise FileError(what, where="" if item.error else item.shown)
        stated = _stated(item.path)
        base, problems = self._by_digest(stated.problem_digest, item)
        answer = load_allocation(item.path, base)
        mean = None if answer.choice is None else LayerIndex(answer.problem).mean_bits(answer.choice)
        return Subject(item, base, stated.revision or Revision(), answer, mean), problems

    def records(self, key: str) -> tuple[Item, list[Record]]:
        """Return the rounds of the run that ``key`` means.

        Raises
        ------
        FileError
            Where it is no run, or its log cannot be read.
        """
        item = self.item(key)
        if item.kind != "run":
            raise FileError(item.error or "is not a run", where="" if item.error else item.shown)
        return item, read_records(item.path / LOG)

    def round_problem(self, run: Item, number: int) -> Item | None:
        """Return the problem that was measured for a round, where its file is there."""
        path = run.path / f"round-{number:02}.problem.toml"
        with self._turn:
            item = self._item(path)
            if item is not None:
                self._items[item.key] = item
        return item if item is not None and item.kind == "problem" else None

    def run_of(self, item: Item) -> tuple[str, int] | None:
        """Return the key of the run that a problem was measured for, and its round."""
        number = item.path.name.removeprefix("round-").removesuffix(".problem.toml")
        run = self._key(item.path.parent)
        named = item.path.name == f"round-{number}.problem.toml" and number.isdecimal()
        return (run, int(number)) if named and run in self._items and self._items[run].kind == "run" else None

    def _round_bits(self, item: Item, problem: Problem) -> tuple[FloatArray | None, list[Item]]:
        """Return the mean bits (L,) of the round that ``problem`` was measured for, and its run."""
        run = self.run_of(item)
        if run is None:
            return None, []
        of, records = self.records(run[0])
        for record in records:
            if record.round == run[1] and len(record.bits) == len(problem):
                index, bits = LayerIndex(problem), np.asarray(record.bits, dtype=np.float64)
                return index.sum(problem.sizes.astype(np.float64) * bits) / index.sizes, [of]
        return None, [of]

    def _problem(self, item: Item) -> Problem:
        with self._turn:
            kept = self._problems.get(str(item.path))
            if kept is not None and kept[0] == item.stamp:
                self._problems.move_to_end(str(item.path))
                return kept[1]
            problem = load_problem(item.path)
            self._keep(str(item.path), item.stamp, problem)
            return problem

    def _keep(self, name: str, stamp: _Stamp, problem: Problem) -> None:
        self._problems[name] = (stamp, problem)
        self._problems.move_to_end(name)
        while len(self._problems) > 1 and sum(len(kept) for _, kept in self._problems.values()) > _MOST_GROUPS:
            self._problems.popitem(last=False)

    def _by_digest(self, digest: str, item: Item) -> tuple[Problem, list[Item]]:
        """Return the problem that an allocation names, and its item: nearest in the folder, or of the gallery."""
        near = [one for one in self.items() if one.kind == "problem" and one.facts["digest"] == digest]
        if near:
            nearest = min(near, key=lambda one: (one.path.parent != item.path.parent, one.shown))
            return self._problem(nearest), [nearest]
        with self._turn:
            if self._gallery is None:
                self._gallery = {problems.load(name).digest: name for name in problems.names()}
            name = self._gallery.get(digest)
            if name is None:
                raise FileError(
                    "no problem with its digest is in the folder or in the gallery", where=item.shown, value=digest[:16]
                )
            if name not in self._problems:
                self._keep(name, (), problems.load(name))
            return self._problems[name][1], []


def _told_by(item: Item) -> Path:
    """Return the file that says what an item is."""
    return item.path / LOG if item.kind == "run" else item.path


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _kind(path: Path) -> str | None:
    """Return what the file says it is; None where it is somebody else's.

    Raises
    ------
    FileError
        Where it is small and nothing: not valid TOML or JSON at all.
    """
    mark, kind = _FORMATS[path.suffix]
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        small = path.stat().st_size <= _SMALL
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=path.name) from None
    if mark in head:
        return kind
    if small:
        try:
            if path.suffix == ".toml":
                read_toml(path)
            else:
                _check_json(path)
        except FileError as error:
            raise FileError(error.what, where=path.name, hint=error.hint) from None
    return None


def _check_json(path: Path) -> None:
    """Raise FileError where a file is no JSON, not even with the NaN that other tools write."""
    try:
        json.loads(read_text(path, "JSON"))
    except FileError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileError(f"is not valid JSON: {first_line(error)}", where=path.name) from None


def _stated(path: Path) -> _Stated:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Stated)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=path.name) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(f"is not an allocation: {error}", where=path.name) from None


def _run_facts(path: Path) -> dict[str, Any]:
    records = read_records(path)
    if not records:
        raise FileError("has no finished round", where=path.name)
    last = records[-1]
    return {
        "strategy": last.strategy,
        "seed": last.seed,
        "rounds": last.round,
        "bits": last.effective_bits.weights,
        "validation": last.accuracy.validation,
        "test": last.accuracy.test,
    }
