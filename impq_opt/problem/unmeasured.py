"""Groups whose damage nobody knows: a 0 beside them is no measurement, so they keep their most bits.

Pins hold them there. The problem makes these pins itself, for every such group that has none of its own and is tied
to none that has; they follow from the other fields, so a pin of such a group at its most bits is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from impq_opt.costs import CostTerm, TableCost
from impq_opt.errors import ProblemError
from impq_opt.groups.held import held
from impq_opt.groups.layout import Layout
from impq_opt.groups.names import GroupNames
from impq_opt.types import BoolArray, IntArray

__all__ = ["AS_IT_IS", "few", "keeping", "mask", "most_columns", "own_pins", "unknown_groups", "unmeasured_lines"]

# From here on a number is as good as not quantized, and rounding it does no damage worth the name.
AS_IT_IS = 16

_SHOWN = 5  # names in a sentence


def mask(given: npt.ArrayLike | None, count: int) -> BoolArray | None:
    """Return which groups (G,) are unmeasured; None where none is.

    Raises
    ------
    ProblemError
        Where it does not say yes or no for each group.
    """
    if given is None:
        return None
    array = np.asarray(given)
    if array.shape != (count,) or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise ProblemError("must say yes or no for each group", where="unmeasured", value=array.shape)
    return held(array.astype(bool)) if array.any() else None


def most_columns(
    layout: Layout,
    unmeasured: BoolArray,
    ties: tuple[tuple[int, ...], ...],
    allowed: BoolArray | None,
    costs: tuple[CostTerm, ...] = (),
) -> dict[int, int]:
    """Return the column of the most bits that each unmeasured group, and all that it is tied to, may take.

    Where candidates are only numbered it is the one that costs most, in the first table of costs.
    """
    groups = np.flatnonzero(unmeasured)
    widths = _widths(layout, groups, costs)
    if allowed is not None:
        widths = np.where(allowed[groups, : widths.shape[1]], widths, -np.inf)
    columns = dict(zip(groups.tolist(), widths.argmax(axis=1).tolist(), strict=True))
    for tie in ties:
        if unmeasured[list(tie)].any():
            taken = [layout.candidates.tied(group, allowed) for group in tie]
            common = set(taken[0]).intersection(*taken[1:])
            most = max((which for which in taken[0] if which in common), key=lambda which: which[0])
            columns |= {g: own[most] for g, own in zip(tie, taken, strict=True) if unmeasured[g]}
    return columns


def _widths(layout: Layout, groups: IntArray, costs: tuple[CostTerm, ...]) -> npt.NDArray[np.float64]:
    """Return what tells the most bits: the width (n, K) of each candidate, -inf where there is none."""
    candidates = layout.candidates
    sets = np.full((len(candidates.sets), candidates.width), -np.inf)
    for row, known in zip(sets, candidates.sets, strict=True):
        row[: len(known)] = known
    widths = sets[np.zeros(len(groups), dtype=np.int64) if candidates.set_of is None else candidates.set_of[groups]]
    table = next((term for term in costs if isinstance(term, TableCost)), None)
    if not candidates.numbered or table is None:
        return widths
    return np.where(widths > -np.inf, table.values[groups, : candidates.width], -np.inf)


def own_pins(pins: Mapping[int, int], most: Mapping[int, int]) -> dict[int, int]:
    """Return the pins that somebody asked for, without those that keep unmeasured groups at their ``most`` bits."""
    return {group: column for group, column in pins.items() if most.get(group) != column}


def keeping(most: Mapping[int, int], pins: Mapping[int, int], ties: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """Return ``pins`` and those that keep the other unmeasured groups at their ``most`` bits.

    What is tied to a group with a pin of its own has that pin's bits, and needs none that says the same.
    """
    follow = {group for tie in ties for group in tie if any(g in pins and pins[g] != most.get(g) for g in tie)}
    asked = {group: column for group, column in pins.items() if group not in follow or most.get(group) != column}
    return {group: column for group, column in most.items() if group not in follow} | asked


def unknown_groups(unmeasured: BoolArray | None, bits: npt.ArrayLike, *, numbered: bool) -> IntArray:
    """Return the groups whose damage a sum of damages lacks at ``bits`` (G,): unmeasured, and really quantized."""
    if unmeasured is None:
        return np.empty(0, dtype=np.int64)
    quantized = np.asarray(bits, dtype=np.float64) < AS_IT_IS
    return np.flatnonzero(unmeasured & (quantized | numbered))


def few(names: GroupNames, groups: IntArray) -> str:
    """Return the names of groups in words, the first of many; all kernels of a layer are called by the layer's."""
    shown: list[str] = []
    left = len(groups)
    for label in dict.fromkeys(names.label_of[groups].tolist()):
        inside = groups[names.label_of[groups] == label].tolist()
        whole = len(inside) == names.offsets[label + 1] - names.offsets[label] > 1
        for part in [inside] if whole else [[group] for group in inside]:
            if len(shown) == _SHOWN:
                return f"{', '.join(shown)} and {left:,} more"
            shown.append(f"{names.labels[label]} ({len(part)} groups)" if whole else names[part[0]])
            left -= len(part)
    return ", ".join(shown)


def unmeasured_lines(
    layout: Layout, unmeasured: BoolArray, kept: Mapping[int, int], bits: npt.ArrayLike | None
) -> list[str]:
    """Return in words which groups are unmeasured: those ``kept`` at a column, and the others, at ``bits`` (G,)."""
    groups = np.flatnonzero(unmeasured)
    inside = np.isin(groups, list(kept))
    lines = []
    for some, where in ((groups[inside], "kept at"), (groups[~inside], "at")):
        if len(some):
            count = "1 group" if len(some) == 1 else f"{len(some):,} groups"
            widths = _widths_of(layout, some, kept if where == "kept at" else None, bits)
            lines.append(f"no damage is known of {count}, {where} {widths}: {few(layout.names, some)}")
    return lines


def _widths_of(layout: Layout, groups: IntArray, kept: Mapping[int, int] | None, bits: npt.ArrayLike | None) -> str:
    """Return in words the precisions of some groups."""
    if layout.candidates.numbered or (kept is None and bits is None):
        return "any precision" if kept is None else "the dearest candidate"
    if kept is not None:
        widths = [layout.candidates.of(group)[kept[group]] for group in groups.tolist()]
    else:
        widths = np.asarray(bits, dtype=np.float64)[groups].tolist()
    low, high = min(widths), max(widths)
    return f"{low:g} bits" if low == high else f"{low:g} to {high:g} bits"
