"""What a cost term is, written down again: the formulas of docs/mathematics.md on the numbers of a question."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from attacks.questions import Part, Question, Row, Table
from impq_opt.costs import TableCost

# A weight group that reads no activation group reads the network's input.
INPUT_BITS = Fraction(8)
PEAK = "peak-activation-memory"


def decimal(value: float | Fraction) -> Fraction:
    """Read a number as the decimal that people wrote."""
    return Fraction(value) if isinstance(value, (int, Fraction)) else Fraction(repr(float(value)))


def row(question: Question, weights: Mapping[str, Fraction | int]) -> Row:
    """Return the weighted sum of cost terms, in whole numbers."""
    singles = [[Fraction(0)] * len(part.bits) for part in question.parts]
    pairs: list[tuple[int, int, list[list[Fraction]]]] = []
    constant = Fraction(0)
    steps = [singles]
    for name, given in weights.items():
        weight = decimal(given)
        if name == PEAK:
            steps = _peak(question, weight)
            continue
        table = next((t for t in question.tables if t.name == name), None)
        if table is not None and table.lookup is None:
            for single, values in zip(singles, stated(table), strict=True):
                for k in range(len(single)):
                    single[k] += weight * values[k]
        elif table is not None:
            _looked_up(question, table, weight, singles, pairs)
        elif name in ("storage", "activation-memory", "representational"):
            wanted = {"storage": ("weight",), "activation-memory": ("activation",)}.get(name, ("weight", "activation"))
            for found, part in zip(singles, question.parts, strict=True):
                for k, bits in enumerate(part.bits):
                    found[k] += weight * part.size * decimal(bits) if part.kind in wanted else 0
        else:
            constant += _computing(question, name, weight, singles, pairs)
    return _whole(steps, pairs, constant)


def stated(table: Table) -> list[list[Fraction]]:
    """Return the table as the package states that it reads it, after a look at how far that is from what was given."""
    term = TableCost.from_array([list(row) for row in table.values], name=table.name)
    found = [[int(v) * term.quantum for v in values] for values in term.values.tolist()]
    for given, read in zip(table.values, found, strict=True):
        for one, other in zip(given, read, strict=True):
            exact = Fraction(one)
            if term.rounding == 0 and exact != other and decimal(one) != other:
                raise AssertionError(f"{one!r} is read as {other} and no rounding is stated")
            if abs(exact - other) > Fraction(term.rounding) + abs(exact) * Fraction(1, 10**9):
                raise AssertionError(f"{one!r} is read as {other}, further than the stated {term.rounding!r}")
    return found


def _peak(question: Question, weight: Fraction) -> list[list[list[Fraction]]]:
    """Return for each step of the execution the bits of the activations alive in it."""
    alive = {step for part in question.parts if part.steps for step in range(part.steps[0], part.steps[1] + 1)}
    found = []
    for step in sorted(alive):
        inside = [p.steps is not None and p.steps[0] <= step <= p.steps[1] for p in question.parts]
        found.append(
            [
                [weight * part.size * decimal(b) if there else Fraction(0) for b in part.bits]
                for part, there in zip(question.parts, inside, strict=True)
            ]
        )
    return found


def _reads(question: Question) -> list[tuple[int, int, int]]:
    """Return (weight, activation or -1, multiply-accumulates)."""
    edges = []
    for g, part in enumerate(question.parts):
        if part.macs:
            edges.append((g, question.places[part.reads] if part.reads else -1, part.macs))
        edges += [(g, question.places[name], macs) for name, macs in part.also_reads]
    return edges


def _computing(
    question: Question, name: str, weight: Fraction, singles: list[list[Fraction]], pairs: list[Any]
) -> Fraction:
    constant = Fraction(0)
    for reader, read, macs in _reads(question):
        part: Part = question.parts[reader]
        wide = [decimal(b) for b in part.bits]
        other = [INPUT_BITS] if read < 0 else [decimal(b) for b in question.parts[read].bits]
        if name == "bit-operations":
            values = [[weight * macs * w * a for a in other] for w in wide]
        else:
            length, outputs = part.length, macs // part.length
            carries = math.ceil(math.log2(length)) if length > 1 else 0
            values = [
                [
                    weight * outputs * (length * a * w + (length - 1) * (a + w + carries - 1))
                    + (weight * 576 * outputs if name == "slides" and macs > part.size else 0)
                    for a in other
                ]
                for w in wide
            ]
        if read < 0:
            for k in range(len(wide)):
                singles[reader][k] += values[k][0]
        else:
            pairs.append((reader, read, values))
    return constant


def _looked_up(
    question: Question, table: Table, weight: Fraction, singles: list[list[Fraction]], pairs: list[Any]
) -> None:
    assert table.lookup is not None
    for g, part in enumerate(question.parts):
        if part.kind != "weight":
            continue
        values = table.lookup[part.name]
        if part.reads:
            read = question.places[part.reads]
            other = question.parts[read].bits
            pairs.append((g, read, [[weight * values[w, a] for a in other] for w in part.bits]))
        else:
            for k, w in enumerate(part.bits):
                singles[g][k] += weight * values[w, 8.0]


def _whole(steps: list[list[list[Fraction]]], pairs: list[Any], constant: Fraction) -> Row:
    every = [v for step in steps for part in step for v in part] + [constant]
    every += [v for _, _, table in pairs for line in table for v in line]
    unit = Fraction(1, math.lcm(*(v.denominator for v in every)))
    return Row(
        unit,
        tuple(tuple(tuple(int(v / unit) for v in part) for part in step) for step in steps),
        tuple((a, b, tuple(tuple(int(v / unit) for v in line) for line in table)) for a, b, table in pairs),
        int(constant / unit),
    )
