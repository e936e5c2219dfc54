"""The core once more, in integers without limit, for the rare answers that 64 bits cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from impq_opt.allocation import Stop
from impq_opt.solver import Control

__all__ = ["WideCore", "WideFound", "search_wide"]


@dataclass(frozen=True)
class WideCore:
    """Minimise the sum of gains with the sum of needs at most ``room`` and a gain at most ``target``.

    options : one list a group of (column, gain, need, reduced cost)
    limit : float
        Most sum of reduced costs, with what rounding asks for on top.
    target : int, optional
    """

    options: Sequence[Sequence[tuple[int, int, int, float]]]
    room: int
    target: int | None
    limit: float


@dataclass
class WideFound:
    """The best assignment (a column a group) and its gain, or None where there is none."""

    columns: list[int] | None = None
    gain: int | None = None
    states: int = 0
    stop: Stop = Stop.COMPLETED


def search_wide(core: WideCore, most: int, control: Control) -> WideFound:
    """Enumerate all undominated partial assignments in exact arithmetic."""
    found = WideFound()
    # A state: gain, need, reduced cost, and the chain of columns that led there.
    states: list[tuple[int, int, float, tuple[int, tuple] | None]] = [(0, 0, 0.0, None)]  # type: ignore[type-arg]
    least_need = _suffix_sums([min(o[2] for o in options) for options in core.options])
    least_gain = _suffix_sums([min(o[1] for o in options) for options in core.options])
    for stage, options in enumerate(core.options):
        room = core.room - least_need[stage + 1]
        target = None if core.target is None else core.target - least_gain[stage + 1]
        grown = sorted(
            (
                (gain + more, need + needed, behind + reduced, (column, chain))
                for gain, need, behind, chain in states
                for column, more, needed, reduced in options
                if need + needed <= room
                and behind + reduced <= core.limit
                and (target is None or gain + more <= target)
            ),
            key=lambda state: state[:2],
        )
        found.states += len(grown)
        states = []
        for state in grown:
            if not states or state[1] < states[-1][1]:
                states.append(state)
        if len(states) > most:
            found.stop = Stop.STATE_LIMIT
            return found
        if control.expired():
            found.stop = Stop.TIME_LIMIT
            return found
    if states:
        gain, _, _, chain = states[0]
        columns: list[int] = []
        while chain is not None:
            column, chain = chain
            columns.append(column)
        found.columns, found.gain = columns[::-1], gain
    return found


def _suffix_sums(values: list[int]) -> list[int]:
    sums = [0]
    for value in reversed(values):
        sums.append(sums[-1] + value)
    return sums[::-1]
