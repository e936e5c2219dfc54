"""A small problem in plain Python numbers, and its truth by looking at every assignment.

Nothing here asks the package for a cost, a damage or a feasibility: sums are of fractions and whole numbers, straight
from what was declared, after the formulas of docs/mathematics.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

Column = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One group as it is declared; a subset of the fields of impq_opt.Group."""

    name: str
    bits: tuple[float, ...]
    size: int = 1
    sensitivity: float | None = None
    damage: tuple[float, ...] | None = None
    kind: str = "weight"
    macs: int = 0
    length: int = 0
    reads: str = ""
    also_reads: tuple[tuple[str, int], ...] = ()
    steps: tuple[int, int] | None = None

    def damages(self) -> list[float]:
        """Return the damage of each candidate: E 4^-B, as the float64 product that is its definition."""
        if self.damage is not None:
            return list(self.damage)
        assert self.sensitivity is not None
        return [self.sensitivity * 2.0 ** (-2.0 * b) for b in self.bits]

    def code(self) -> str:
        plain = Part(self.name, self.bits)
        given = [f"{k}={v!r}" for k, v in vars(self).items() if k in ("name", "bits", "size") or v != vars(plain)[k]]
        return f"Group({', '.join(given)})"


@dataclass(frozen=True)
class Table:
    """A declared cost for every group and candidate, or (``pairs``) for every read by weight and activation bits."""

    name: str
    values: tuple[tuple[float, ...], ...] = ()
    lookup: Mapping[str, Mapping[tuple[float, float], Fraction]] | None = None


@dataclass(frozen=True)
class Row:
    """A cost in whole numbers of ``unit``: the largest of ``steps`` (G, K), and pairs and a constant on top."""

    unit: Fraction
    steps: tuple[tuple[tuple[int, ...], ...], ...]
    pairs: tuple[tuple[int, int, tuple[tuple[int, ...], ...]], ...] = ()
    constant: int = 0

    def at(self, choice: Column) -> int:
        total = max(sum(row[k] for row, k in zip(step, choice, strict=True)) for step in self.steps)
        return total + self.constant + sum(table[choice[a]][choice[b]] for a, b, table in self.pairs)


@dataclass(frozen=True)
class Question:
    """A problem and what is asked of it."""

    parts: tuple[Part, ...]
    tables: tuple[Table, ...] = ()
    objective: Mapping[str, Fraction | int] = field(default_factory=lambda: {"storage": 1})
    bound: float | Fraction | None = None
    budget: Fraction | None = None
    budgets: Mapping[str, Fraction] = field(default_factory=dict)
    pins: Mapping[int, int] = field(default_factory=dict)
    ties: tuple[tuple[int, ...], ...] = ()
    # by Problem.from_tables, candidates called by their columns
    numbered: bool = False

    # -- as the package is asked ---------------------------------------------------------------------------------

    def code(self) -> str:
        """Return an expression for the problem."""
        pins = {self.parts[g].name: self.parts[g].bits[k] for g, k in self.pins.items()}
        ties = [tuple(self.parts[g].name for g in tie) for tie in self.ties]
        if self.numbered:
            table = next(t for t in self.tables if t.name == "cost")
            damage = [list(p.damages()) for p in self.parts]
            made = f"Problem.from_tables({_lists(table.values)}, {damage!r}, names={[p.name for p in self.parts]!r}"
            made += f", costs=({', '.join([*(self._table(t) for t in self.tables if t is not table), ''])})).revise("
        else:
            made = f"Problem.declare([{', '.join(p.code() for p in self.parts)}]"
            if self.tables:
                made += f", costs=({', '.join([*map(self._table, self.tables), ''])})"
            made += ", "
        given = [f"minimize={dict(self.objective)!r}"]
        given += [f"budgets={dict(self.budgets)!r}"] if self.budgets else []
        given += [f"pins={pins!r}"] if pins else []
        given += [f"ties={ties!r}"] if ties else []
        return made + ", ".join(given) + ")"

    def _table(self, table: Table) -> str:
        if table.lookup is None:
            return f"TableCost.from_array({_lists(table.values)}, name={table.name!r})"
        parts = ", ".join(replace(p, sensitivity=1.0, damage=None).code() for p in self.parts)
        return f"LookupCost.from_table({_plain(table.lookup)!r}, Problem.declare([{parts}]), name={table.name!r})"

    def goal(self) -> str:
        """Return what is asked, as arguments of ``solve``."""
        return f"budget={self.budget!r}" if self.budget is not None else f"bound={self.bound!r}"

    @cached_property
    def problem(self) -> Any:
        """The problem; raises what the package raises where it refuses it."""
        return eval(self.code(), namespace())

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The arguments of ``solve``."""
        return {"budget": self.budget} if self.budget is not None else {"bound": self.bound}

    def program(self, *lines: str) -> str:
        """Return a program that reproduces a fault."""
        head = [
            "from fractions import Fraction",
            "from math import inf",
            "from impq_opt import Group, Problem, solve, verify",
            "from impq_opt.costs import LookupCost, TableCost",
            f"problem = {self.code()}",
        ]
        return "\n".join(f"    {line}" for line in [*head, *lines])

    # -- the truth -----------------------------------------------------------------------------------------------

    @cached_property
    def places(self) -> dict[str, int]:
        return {part.name: g for g, part in enumerate(self.parts)}

    @cached_property
    def damages(self) -> list[list[int | None]]:
        """The damage (G, K) in units of 2**-1074; None where it is infinite: not allowed."""
        return [[None if math.isinf(d) else _units(d) for d in part.damages()] for part in self.parts]

    def assignments(
        self, pins: Mapping[int, int] | None = None, ties: Iterable[tuple[int, ...]] | None = None
    ) -> Iterator[Column]:
        """Yield every choice that keeps pins and ties: the question's, or those given."""
        pins, ties = self.pins if pins is None else pins, list(self.ties if ties is None else ties)
        ranges: list[Iterable[int]] = [
            [k for k, d in enumerate(row) if d is not None and pins.get(g, k) == k]
            for g, row in enumerate(self.damages)
        ]
        for choice in itertools.product(*ranges):
            if any(len({self.parts[g].bits[choice[g]] for g in tie}) > 1 for tie in ties):
                continue
            yield choice

    @property
    def count(self) -> int:
        return math.prod(len(part.bits) for part in self.parts)

    def damage(self, choice: Column) -> int:
        """Return the damage of a choice in units of 2**-1074."""
        return sum(row[k] for row, k in zip(self.damages, choice, strict=True))  # type: ignore[misc]

    @cached_property
    def row(self) -> Row:
        """What is minimised, or limited by ``budget``."""
        from attacks.formulas import row

        return row(self, self.objective)

    @cached_property
    def limits(self) -> list[tuple[str, Row, Fraction]]:
        from attacks.formulas import row

        found = [(name, row(self, {name: 1}), limit) for name, limit in self.budgets.items()]
        return [*found, ("budget", self.row, self.budget)] if self.budget is not None else found

    def allowed(self) -> int | None:
        """Return the most damage, in units, or None."""
        return None if self.bound is None or self.budget is not None else math.floor(Fraction(self.bound) * _ONE)

    def keeps(self, choice: Column, damage: int | None = None, without: frozenset[str] = frozenset()) -> bool:
        """Return whether a choice keeps every limit but those ``without``."""
        most = self.allowed()
        if most is not None and "damage" not in without:
            damage = self.damage(choice) if damage is None else damage
            if damage > most:
                return False
        return all(name in without or row.at(choice) * row.unit <= limit for name, row, limit in self.limits)

    def value(self, choice: Column) -> Fraction:
        """Return the objective of a choice."""
        return Fraction(self.damage(choice), _ONE) if self.budget is not None else self.row.at(choice) * self.row.unit

    @cached_property
    def truth(self) -> Fraction | None:
        """The least objective of all that keep every limit; None where none does."""
        best: int | None = None
        by_cost = self.budget is None
        for choice in self.assignments():
            value = self.row.at(choice) if by_cost else self.damage(choice)
            if (best is None or value < best) and self.keeps(choice):
                best = value
        return None if best is None else best * (self.row.unit if by_cost else Fraction(1, _ONE))

    def least(
        self, limit: str, under: frozenset[str], pins: Mapping[int, int], ties: Iterable[tuple[int, ...]]
    ) -> Fraction | None:
        """Return the least damage or cost called ``limit`` of what keeps the limits ``under``; None where none does."""
        names = {name for name, _, _ in self.limits} | {"damage"}
        rows = {name: row for name, row, _ in self.limits}
        without = frozenset(names - under)
        values = [
            Fraction(self.damage(c), _ONE) if limit == "damage" else rows[limit].at(c) * rows[limit].unit
            for c in self.assignments(pins, ties)
            if self.keeps(c, without=without)
        ]
        return min(values, default=None)


_ONE = 1 << 1074


def _units(value: float) -> int:
    top, bottom = value.as_integer_ratio()
    return top * (_ONE // bottom)


def _lists(rows: Iterable[Iterable[float]]) -> str:
    return repr([list(row) for row in rows])


def _plain(lookup: Mapping[str, Mapping[tuple[float, float], Fraction]]) -> dict[str, Any]:
    return {
        layer: {(Fraction(str(w)), Fraction(str(a))): v for (w, a), v in values.items()}
        for layer, values in lookup.items()
    }


def namespace() -> dict[str, Any]:
    """Return the names that the code of a question uses."""
    import impq_opt
    from impq_opt.costs import LookupCost, TableCost

    return {
        "Fraction": Fraction,
        "inf": math.inf,
        "Group": impq_opt.Group,
        "Problem": impq_opt.Problem,
        "TableCost": TableCost,
        "LookupCost": LookupCost,
    }
