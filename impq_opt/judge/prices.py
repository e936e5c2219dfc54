"""Prices that nobody gave: a search for those at which the least priced sum is closest to what the limits allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fractions import Fraction

from impq_opt.judge.lines import Line

__all__ = ["is_priced", "searched"]

# Evaluations of the room; more would take longer than they save.
_MOST = 300
# Steps of a price in powers of two: coarse ones where nothing is known, then finer and finer ones.
_COARSE = (2.0**8, 2.0**2)
_FINE = tuple(2.0**2.0**-k for k in range(1, 26, 2))


def searched(lines: Sequence[Line], held: Collection[int], room: Callable[[list[Line]], Fraction]) -> list[Line]:
    """Return the lines with prices that leave little room, or none: room below 0 proves that nothing keeps all lines.

    The room is convex in each price. They are gone through one after the other, from those that ``lines`` have where
    these are of use, else from one line alone that is priced. Any prices are valid: the search need not be good. Lines
    that are ``held`` by looking at all combinations of their groups need none.
    """
    given, free = [line.price for line in lines], [i for i in range(len(lines)) if i not in held]
    if is_priced(lines, held):
        return _at(lines, _descent(given, free[1:], _FINE, lines, room)[1])
    first = [0] if given[0] > 0 else free or [0]
    starts = [[given[i] or _scale(line) if i == base else 0.0 for i, line in enumerate(lines)] for base in first]
    descents = []
    for base, start in zip(first, starts, strict=True):
        descents.append(_descent(start, [i for i in free if i != base], (*_COARSE, *_FINE), lines, room))
        if descents[-1][0] < 0:
            break
    return _at(lines, min(descents, key=lambda descent: descent[0])[1])


def is_priced(lines: Sequence[Line], held: Collection[int]) -> bool:
    """Return whether the lines have prices that a search may begin with: two of them, of those that need one."""
    free = [line.price for i, line in enumerate(lines) if i not in held]
    return sum(price > 0 for price in free) >= min(2, len(free))


def _descent(
    prices: list[float],
    places: Sequence[int],
    steps: Sequence[float],
    lines: Sequence[Line],
    room: Callable[[list[Line]], Fraction],
) -> tuple[Fraction, list[float]]:
    """Return the least room that was found, and its prices; those of other lines than ``places`` stay."""
    least, left = room(_at(lines, prices)), _MOST
    for step in steps:
        for place in places:
            for way in (step, 1 / step):
                while least >= 0 and left > 0:
                    price = prices[place] * way or _scale(lines[place]) * 2.0**-24
                    tried = [*prices[:place], price, *prices[place + 1 :]]
                    reached = room(_at(lines, tried)) if 0 < price < math.inf else least
                    left -= 1
                    if reached >= least:
                        break
                    prices, least = tried, reached
    return least, prices


def _at(lines: Sequence[Line], prices: Sequence[float]) -> list[Line]:
    return [replace(line, price=price) for line, price in zip(lines, prices, strict=True)]


def _scale(line: Line) -> float:
    """Return a power of two at which a line's limit weighs about 1."""
    size = Fraction(max(abs(line.limit), abs(line.base), 1), line.unit)
    return 2.0 ** -max(-900, min(900, size.numerator.bit_length() - size.denominator.bit_length()))
