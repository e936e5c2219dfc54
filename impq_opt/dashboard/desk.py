"""Questions put to problems while a page waits: one at a time for each problem, and the newest one wins."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from impq_opt.dashboard.folder import Subject
from impq_opt.errors import ImpqError, OptionError, UnsupportedError
from impq_opt.files import Revision
from impq_opt.insight.frontier import Frontier, frontier
from impq_opt.instance.contract import Control, clock
from impq_opt.instance.question import make_instance
from impq_opt.problem.allocation import Allocation, Stop
from impq_opt.problem.problem import Problem
from impq_opt.report.layers import LayerIndex
from impq_opt.solve import answer, answer_prepared
from impq_opt.solvers.exact.strategy import Exact, Prepared

__all__ = ["Answered", "Desk", "Pin", "Question", "Revised", "SupersededError", "Sweep", "Work"]

# Seconds for an answer; what is not proved by then comes with its gap.
TIME_LIMIT = 5.0
_MOST_ANSWERS, _MOST_ANSWERED = 24, 6_000_000
_MOST_WORKS = 6
# Groups of the problems whose hulls are kept: some hundred bytes each.
_MOST_GROUPS = 1_500_000
_MOST_PINS = 2_000


class SupersededError(ImpqError):
    """A newer question to the same problem came."""

    def __init__(self) -> None:
        super().__init__("a newer question to this problem came")


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A precision that a layer, or one of its groups, is to take.

    Parameters
    ----------
    layer : int
        Its place in the problem's layers.
    to : str
        Bits, or the name of a format.
    group : int, optional
        The place of the group in the layer; all of them where it is left out.
    """

    layer: int
    to: str
    group: int | None = None


class Revised(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is changed on the problem: pins, and the cost that counts (the problem's objective where it is empty)."""

    pins: tuple[Pin, ...] = ()
    minimize: str = ""


class Sweep(Revised, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole trade-off of the problem as revised; without its hull, which takes seconds for a million groups."""

    hull: bool = True


class Question(Revised, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The least cost whose damage is at most ``value``, or the least damage whose cost is."""

    limit: Literal["damage", "cost"]
    value: float


@dataclass(eq=False)
class Work:
    """A problem as revised, with what is made once for many questions."""

    subject: Subject
    revision: Revision
    problem: Problem
    weights: Mapping[str, Fraction | int | float]
    index: LayerIndex
    front: Frontier | None = None
    prepared: Prepared | None = None
    reason: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, kept for who asks for its kernels or its file."""

    key: str
    work: Work
    allocation: Allocation


@dataclass
class _Turn:
    """Whose turn it is at one problem."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    newest: int = 0
    flag: npt.NDArray[np.uint8] | None = None


class Desk:
    """Answers questions, and keeps the last answers."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._works: OrderedDict[object, Work] = OrderedDict()
        self._answers: OrderedDict[str, Answered] = OrderedDict()
        self._mutex = threading.Lock()

    # -- asking ----------------------------------------------------------------------------------------------------

    def solve(self, subject: Subject, question: Question, seconds: float = TIME_LIMIT) -> Answered:
        """Return the exact strategy's answer, proved or with its gap when the time is over.

        Raises
        ------
        SupersededError
            Where a newer question to the same problem came in the meantime.
        InputError
            For a limit that is none, or pins that the problem does not have.
        """
        with self._turn(subject.base.digest) as flag:
            work = self.work(subject, question)
            started = clock()
            control = Control(started + seconds, interrupt=flag)
            limit = _exact(question.value)
            if question.limit == "damage" and work.prepared is not None:
                found = answer_prepared(work.prepared, limit, control, started)
            else:
                asked = {"bound" if question.limit == "damage" else "budget": limit}
                instance = make_instance(work.problem, minimize=dict(work.weights), **asked)  # type: ignore[arg-type]
                found = answer(instance, Exact(), control, started)
        if found.stop is Stop.INTERRUPTED:
            raise SupersededError
        return self.keep(work, found)

    def swept(self, subject: Subject, revised: Revised) -> Work:
        """Return the problem as revised with its frontier, from which bound after bound is answered.

        Where there is none ``front`` is None and ``reason`` says why.
        """
        work = self.work(subject, revised)
        with work.lock:
            if work.front is None and not work.reason:
                try:
                    front = frontier(work.problem, dict(work.weights))  # type: ignore[arg-type]
                except UnsupportedError as error:
                    work.reason = str(error)
                    return work
                # The frontier knows no budgets; whoever declared some gets answers that keep them.
                if not work.problem.budgets:
                    work.prepared = Exact().prepared(front.instance, front.edges.taken(front.order))
                work.front = front
        return work

    def work(self, subject: Subject, revised: Revised) -> Work:
        """Return the problem as revised.

        Raises
        ------
        InputError
            For pins or a cost that the problem does not have.
        """
        key = (subject.item.key, subject.item.stamp, subject.base.digest, revised.pins, revised.minimize)
        with self._mutex:
            work = self._works.get(key)
            if work is not None:
                self._works.move_to_end(key)
                return work
        work = _work(subject, revised)
        with self._mutex:
            self._works[key] = work
            while len(self._works) > 1 and (
                len(self._works) > _MOST_WORKS or sum(len(one.problem) for one in self._works.values()) > _MOST_GROUPS
            ):
                self._works.popitem(last=False)
        return work

    @contextmanager
    def _turn(self, key: str) -> Iterator[npt.NDArray[np.uint8]]:
        with self._mutex:
            turn = self._turns.setdefault(key, _Turn())
            turn.newest += 1
            mine = turn.newest
            if turn.flag is not None:
                turn.flag[0] = 1
        with turn.lock:
            flag: npt.NDArray[np.uint8] = np.zeros(1, dtype=np.uint8)
            with self._mutex:
                if mine != turn.newest:
                    raise SupersededError
                turn.flag = flag
            try:
                yield flag
            finally:
                with self._mutex:
                    turn.flag = None

    def stop(self) -> None:
        """End what is being answered: nobody waits any more."""
        with self._mutex:
            for turn in self._turns.values():
                turn.newest += 1
                if turn.flag is not None:
                    turn.flag[0] = 1

    # -- answers ---------------------------------------------------------------------------------------------------

    def keep(self, work: Work, allocation: Allocation) -> Answered:
        """Return ``allocation`` with a key, by which it is found for some time."""
        kept = Answered(secrets.token_urlsafe(9), work, allocation)
        with self._mutex:
            self._answers[kept.key] = kept
            while len(self._answers) > 1 and (
                len(self._answers) > _MOST_ANSWERS
                or sum(len(one.work.problem) for one in self._answers.values()) > _MOST_ANSWERED
            ):
                self._answers.popitem(last=False)
        return kept

    def answered(self, key: str) -> Answered:
        """Return the answer kept as ``key``; raise OptionError where it is gone."""
        with self._mutex:
            kept = self._answers.get(key)
        if kept is None:
            raise OptionError("this answer is not kept any more", hint="move the slider to ask again")
        return kept


def _exact(value: float) -> Fraction:
    if not 0 <= value < float("inf"):
        raise OptionError("must be a number >= 0", where="limit", value=value)
    return Fraction(value)


def _work(subject: Subject, revised: Revised) -> Work:
    if len(revised.pins) > _MOST_PINS:
        raise OptionError(f"more than {_MOST_PINS} pins", where="pins", value=len(revised.pins))
    index = LayerIndex(subject.base)
    pins: dict[str, int | float | str] = dict(subject.revision.pins)
    for pin in revised.pins:
        for name in _names(subject.base, index, pin):
            if pins.get(name, pin.to) != pin.to and name in subject.revision.pins:
                raise OptionError("is pinned in the file too", where=name, value=subject.revision.pins[name])
            pins[name] = pin.to
    revision = msgspec.structs.replace(subject.revision, pins=pins)
    problem = revision.apply(subject.base) if revision else subject.base
    weights = {revised.minimize: 1} if revised.minimize else problem.objective
    if revised.minimize:
        problem.cost(revised.minimize)
    return Work(subject, revision, problem, weights, LayerIndex(problem))


def _names(problem: Problem, index: LayerIndex, pin: Pin) -> list[str]:
    """Return the names that mean what is pinned: of the layer's labels, or of one group."""
    if not 0 <= pin.layer < len(index.keys):
        raise OptionError("there is no such layer", where="pins", value=pin.layer)
    groups = np.flatnonzero(index.of_group == pin.layer)
    if pin.group is None:
        return [problem.names.labels[label] for label in np.unique(problem.names.label_of[groups]).tolist()]
    if not 0 <= pin.group < len(groups):
        raise OptionError("there is no such group", where=f"pins: {index.keys[pin.layer][0]}", value=pin.group)
    return [problem.names[int(groups[pin.group])]]
