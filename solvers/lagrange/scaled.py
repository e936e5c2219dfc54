"""The rows of an instance in units in which they can be priced: no sum of products overflows, no price underflows."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from impq_opt.exactness.limits import ABOVE_ALL_DAMAGE, clamped
from impq_opt.exactness.sums import floor_float
from impq_opt.instance.instance import Instance
from impq_opt.instance.local import is_local
from impq_opt.instance.row import Row

__all__ = ["ScaledLimit", "priced_limits"]

# No price says anything at which so much damage, in units of the bound, might be chosen.
_FAR_ABOVE = 1e60


class ScaledLimit(NamedTuple):
    """A limit whose base is taken off, in units of 2**``shift`` of those of the instance's own row."""

    row: Row
    shift: int = 0


def priced_limits(instance: Instance) -> list[ScaledLimit]:
    """Return the limits of ``instance`` that are priced: all but those on few groups."""
    return [_clipped(row) if row.whole else _scaled(row) for row in instance.limits if _has_price(row)]


def _has_price(row: Row) -> bool:
    if not row.of_blocks:
        return not is_local(row)
    # A cost of nothing wants no price.
    return not row.whole or row.pairs is not None or bool(row.table.any())


def _clipped(row: Row) -> ScaledLimit:
    """Return a limit on a cost that leaves no more or less than any sum of costs reaches."""
    room = clamped(int(row.room))
    return ScaledLimit(Row(row.name, row.entries, 0, room, pairs=row.pairs))


def _scaled(row: Row) -> ScaledLimit:
    """Return the bound in units of about itself, so that its price is one of costs, however small damages are.

    What is far above the bound, which no answer takes, is lowered to a number that cannot overflow.
    """
    room, damage = min(Fraction(row.room), Fraction(ABOVE_ALL_DAMAGE)), row.table
    shift = math.frexp(floor_float(room))[1]
    with np.errstate(over="ignore"):
        scaled = np.ldexp(damage, -shift)
        # What leaves the range of float64 at its lower end is rounded down, so that no sum seems to exceed the bound.
        scaled = np.where(np.ldexp(scaled, shift) > damage, np.nextafter(scaled, 0.0), scaled)
    limited = np.minimum(scaled, _FAR_ABOVE)
    return ScaledLimit(Row(row.name, limited, Fraction(0), room / Fraction(2) ** shift, whole=False), shift)
