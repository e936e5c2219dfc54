"""The declared problem: groups, candidates, damage, costs, bounds, pins and ties. Frozen and validated whole."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impq_opt.costs import CostTerm, TableCost, cost_named, format_quantity
from impq_opt.documents.numbers import number_of, read_exact
from impq_opt.errors import ProblemError
from impq_opt.exactness.sums import exact_sum
from impq_opt.groups.arrays import (
    allowed_tables,
    candidate_sets,
    exact_bound,
    group_names,
    int_array,
    precisions,
    rectangles,
)
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.held import frozen
from impq_opt.groups.interactions import Factors, Interactions
from impq_opt.groups.labelled import align
from impq_opt.groups.layout import Layout
from impq_opt.groups.names import GroupNames
from impq_opt.problem.card import by_layer, card
from impq_opt.problem.declaration import Group, from_groups, group_at, pin, restrict, tie, without_activations
from impq_opt.problem.frame import data_frame, group_columns
from impq_opt.problem.limits import read_limit
from impq_opt.problem.plain import finite, plain
from impq_opt.problem.stays import STORED, Stay, Whole, check_stays, staying_lines, width
from impq_opt.problem.unmeasured import keeping, mask, most_columns, own_pins, unmeasured_lines
from impq_opt.problem.validation import (
    check_damage,
    check_goals,
    check_grids,
    check_interactions,
    check_pins,
    check_tables,
    check_ties,
)
from impq_opt.types import BoolArray, FloatArray, IntArray, Real, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem(Layout):
    """Which precision each group may take, what it costs and what it damages.

    Build it with :meth:`from_sensitivities`, :meth:`from_tables` or :meth:`declare`, or load a file. Arrays and
    mappings are copied and held: what is changed afterwards, by whomever, changes no problem.

    ``problem["conv1"]`` is a :class:`Group`, and a loop goes over all of them. Two problems are equal where all that
    they declare is, provenance aside.

    Parameters
    ----------
    names, candidates, sizes, kinds, ranges, macs, reads, also_reads, lengths, steps, types
        The groups, as in :class:`impq_opt.groups.layout.Layout`.
    damage : PowerLaw or DamageTable
        Of G groups at each of their candidates.
    interactions : Factors or Pairs, optional
        What pairs of groups do together, beyond ``damage``, which stays what each does alone.
    costs : tuple of CostTerm
        Declared cost terms beside the built-in ones.
    objective : mapping of str to number
        Weights of the cost terms that are minimised together.
    bound : float or Fraction, optional
        Largest damage allowed, p_m. A float is read as the exact binary number that it is.
    budgets : mapping of str to Fraction
        Largest value allowed of a cost term, in its unit.
    pins : mapping of int to int
        Column of the candidate that a group must take.
    ties : tuple of tuple of int
        Groups that must take equal precisions.
    metric, damage_unit : str
        What the damage is, and its unit.
    unmeasured : ndarray of bool (G,), optional
        Groups whose damage is not known, whatever ``damage`` says of them. Those without a pin keep their most bits:
        the problem pins them there itself.
    free_unmeasured : bool
        Let them take any bits, as if they damaged no more than ``damage`` says. Nobody can prove the sum then.
    stays : tuple of Stay, optional
        Every parameter of the network that is in no group; None where nothing is said about them.
    stored : int or Fraction
        Bits of a weight in a group as the network stores it; 32 where nothing is said.
    grids : mapping of str to str
        How the weights of a label are rounded, or its activation: the name of a method of
        :mod:`impq_opt.quantize.methods`, with options, such as ``"zero"`` or ``"zero:over=tensor"``. ``"mid-rise"``
        where a label is not named.
    provenance : mapping
        Where the numbers come from.
    """

    damage: PowerLaw | DamageTable
    costs: tuple[CostTerm, ...] = ()
    objective: Mapping[str, Fraction | int] = field(default_factory=lambda: {"storage": 1})
    bound: float | Fraction | None = None
    budgets: Mapping[str, Fraction] = field(default_factory=dict)
    pins: Mapping[int, int] = field(default_factory=dict)
    ties: tuple[tuple[int, ...], ...] = ()
    metric: str = "impq"
    damage_unit: str = "mismatch probability bound"
    unmeasured: BoolArray | None = None
    free_unmeasured: bool = False
    stays: tuple[Stay, ...] | None = None
    stored: int | Fraction = STORED
    grids: Mapping[str, str] = field(default_factory=dict)
    interactions: Interactions | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pins", _whole_pins(self.pins))
        object.__setattr__(self, "budgets", {name: _exact(v, f"budgets.{name}") for name, v in self.budgets.items()})
        object.__setattr__(self, "objective", {name: _weight(v) for name, v in self.objective.items()})
        if self.bound is not None and not isinstance(self.bound, (int, float, Fraction)):
            object.__setattr__(self, "bound", exact_bound(self.bound))
        object.__setattr__(self, "stored", width(self.stored, "stored"))
        if self.stays is not None:
            object.__setattr__(self, "stays", check_stays(self.stays))
        super().__post_init__()
        check_tables(self, self.costs)
        check_damage(self, self.damage)
        check_interactions(self, self.interactions)
        check_goals(self.costs, self.objective, self.budgets, self.bound)
        check_pins(self, self.pins, self.allowed)
        check_ties(self, self.ties, self.pins, self.allowed)
        check_grids(self, self.grids)
        # One tie, one form: neither the digest nor the answer depends on the order in which it was written.
        object.__setattr__(self, "ties", tuple(sorted(tuple(sorted(int(g) for g in tie)) for tie in self.ties)))
        object.__setattr__(self, "unmeasured", mask(self.unmeasured, len(self)))
        if self.unmeasured is not None and not self.free_unmeasured:
            object.__setattr__(self, "pins", frozen(keeping(self._most, self.pins, self.ties)))

    @property
    def _most(self) -> dict[int, int]:
        """The most bits, as a column, of each unmeasured group."""
        if self.unmeasured is None:
            return {}
        return most_columns(self, self.unmeasured, self.ties, self.allowed, self.costs)

    @property
    def kept(self) -> Mapping[int, int]:
        """The groups that are held at their most bits, as a column, because nobody knows their damage."""
        return frozen({group: column for group, column in self._most.items() if self.pins.get(group) == column})

    # -- building ------------------------------------------------------------------------------------------------

    @classmethod
    def from_sensitivities(
        cls,
        sizes: npt.ArrayLike,
        sensitivities: npt.ArrayLike | Sequence[Real],
        *,
        bits: Sequence[float] = range(1, 9),
        names: Sequence[str] | GroupNames | None = None,
        kinds: Sequence[str] | npt.ArrayLike | None = None,
        stderr: npt.ArrayLike | None = None,
        **fields: Any,
    ) -> Problem:
        """Declare G groups by size (G,) and sensitivity (G,), all with the candidates ``bits``.

        ``fields`` are further fields of :class:`Problem`.
        """
        given = {"sizes": sizes, "sensitivities": sensitivities, "stderr": stderr, **_vectors(kinds, fields)}
        aligned = align(given, names)
        size_array = int_array(aligned.arrays["sizes"], "sizes")
        return cls(
            names=group_names(aligned.names, len(size_array)),
            candidates=Candidates((precisions(bits, "bits"),)),
            damage=PowerLaw(aligned.arrays["sensitivities"], aligned.arrays["stderr"]),
            sizes=size_array,
            **fields | {name: array for name, array in aligned.arrays.items() if name in _VECTORS},
        )

    @classmethod
    def from_tables(
        cls,
        cost: Table,
        damage: Table,
        *,
        bits: Sequence[float] | Sequence[Sequence[float]] | None = None,
        names: Sequence[str] | GroupNames | None = None,
        sizes: npt.ArrayLike | None = None,
        unit: str = "",
        **fields: Any,
    ) -> Problem:
        """Declare G groups by a cost (G, K) and a damage (G, K) for each of their candidates.

        Tables may be non-convex and non-monotone. Groups with different candidates have rows of different lengths, as
        lists, or ``bits`` as one list a group: columns past its end are ignored. Where ``bits`` is left out a candidate
        is called by its column.

        Fractions and decimals are exact costs, and damages rounded to float64; tensors of torch are read in any type.

        What is masked in either table (:mod:`numpy.ma`), and what costs or damages infinitely much, is not allowed. It
        keeps its column: a choice (G,) holds column numbers of the tables as they are given.

        Tables of other libraries with labels (``index`` and ``columns``, as pandas has them) are put in one order, that
        of ``names`` and ``bits`` or of the first table with labels, and choices refer to that order. Labels of rows
        become names, labels of columns bits where they are numbers, else formats.
        """
        tables, lengths = rectangles({"cost": cost, "damage": damage})
        aligned = align({**tables, "sizes": sizes, **_vectors(None, fields)}, names, bits)
        costs, table = allowed_tables(aligned.arrays["cost"], aligned.arrays["damage"])
        term = TableCost.from_array(costs, unit=unit)
        count, width = table.shape
        size_array = aligned.arrays["sizes"]
        fields |= {name: array for name, array in aligned.arrays.items() if name in _VECTORS}
        return cls(
            names=group_names(aligned.names, count),
            candidates=candidate_sets(aligned.bits, count, width, aligned.formats, lengths),
            damage=DamageTable(table),
            sizes=np.ones(count, dtype=np.int64) if size_array is None else size_array,
            costs=(term, *fields.pop("costs", ())),
            objective=fields.pop("objective", {"cost": 1}),
            damage_unit=fields.pop("damage_unit", ""),
            metric=fields.pop("metric", "table"),
            **fields,
        )

    @classmethod
    def declare(
        cls,
        groups: Iterable[Group],
        *,
        minimize: str | Mapping[str, float] = "storage",
        bound: Real | None = None,
        budgets: Mapping[str, str | Real] | None = None,
        pins: Mapping[str, float | str] | None = None,
        ties: Iterable[Sequence[str]] = (),
        **fields: Any,
    ) -> Problem:
        """Build a problem from groups written one by one; names in pins and ties may be patterns.

        Examples
        --------
        >>> problem = Problem.declare(
        ...     [Group("conv1", size=432, sensitivity=0.8), Group("fc", size=640, sensitivity=0.1, bits=(2, 4, 8))],
        ...     bound=0.01, pins={"conv1": 8},
        ... )
        >>> len(problem)
        2
        """
        problem = cls(**from_groups(tuple(groups)) | fields)
        return problem.revise(minimize=minimize, bound=bound, budgets=budgets, pins=pins, ties=ties)

    def revise(
        self,
        *,
        minimize: str | Mapping[str, float] | None = None,
        bound: Real | None = None,
        budgets: Mapping[str, str | Real] | None = None,
        pins: Mapping[str, float | str] | None = None,
        ties: Iterable[Sequence[str]] = (),
        bits: Sequence[float] | None = None,
        free_unmeasured: bool | None = None,
        weights_only: bool = False,
    ) -> Problem:
        """Return the problem with other goals, and with more pins and ties.

        Parameters
        ----------
        minimize : str or mapping
            Cost term, or weights of several.
        bound : float or Fraction
        budgets : mapping
            Cost term to a number of its unit or a text such as ``"2MiB"``, for storage also ``"4.5bpw"``, the mean
            bits of the weights; added to those there are.
        pins : mapping
            Pattern (see :meth:`select`) to bits or format, such as ``{"kind:activation": 8}``; added to those there
            are.
        ties : iterable of sequences of patterns
            Each sequence makes one tie of all groups it means; groups of one shape are tied one by one when two
            patterns mean labels of one shape (kernel 3 of q with kernel 3 of k).
        bits : sequence of float
            Keep only these candidates.
        free_unmeasured : bool
            Whether unmeasured groups may leave their most bits; a pin lets them go too, one by one.
        weights_only : bool
            Leave out the activations, which then stay as they are: neither cost nor damage counts them.

        Raises
        ------
        ProblemError
            Where a pattern means no group, or what is asked cannot be.
        """
        free = self.free_unmeasured if free_unmeasured is None else free_unmeasured
        changes: dict[str, Any] = {}
        if self.unmeasured is not None and not self.free_unmeasured:
            # The problem's own pins follow from all else, so they go first and are made again last.
            changes = {"free_unmeasured": True, "pins": own_pins(self.pins, self._most)}
        if minimize is not None:
            changes["objective"] = {minimize: 1} if isinstance(minimize, str) else dict(minimize)
        if bound is not None:
            changes["bound"] = bound
        if budgets:
            changes["budgets"] = dict(self.budgets) | {
                name: read_limit(self, name, value, f"budgets.{name}") for name, value in budgets.items()
            }
        problem = replace(self, **changes) if changes else self
        if weights_only and not problem.weights().all():
            rest = without_activations(
                problem, problem.damage, problem.interactions, problem.costs, problem.pins, problem.ties
            )
            labels = set(rest["names"].labels)
            grids = {label: grid for label, grid in problem.grids.items() if label in labels}
            problem = replace(problem, **rest, grids=grids)
        if bits is not None:
            kept = restrict(problem, problem.damage, problem.interactions, problem.costs, problem.pins, bits)
            problem = replace(problem, **kept)
        if pins:
            problem = replace(problem, pins=pin(problem, problem.pins, pins))
        ties = tuple(ties)
        if ties:
            problem = replace(problem, ties=tie(problem, problem.ties, ties))
        return problem if problem.free_unmeasured == free else replace(problem, free_unmeasured=free)

    def grid(self, label: str) -> str:
        """Return how the weights of ``label``, or its activation, are rounded."""
        return self.grids.get(label, "mid-rise")

    @property
    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Which candidates (G, K) a group may take, those whose damage is finite; None where it may take all."""
        return None if isinstance(self.damage, PowerLaw) else self.damage.allowed(self.candidates)

    # -- reading -------------------------------------------------------------------------------------------------

    def total_damage(self, choice: IntArray) -> Fraction:
        """Return the exact damage of a choice (G,): what each group does alone, and what groups do together."""
        alone = exact_sum(self.damage.chosen(self.candidates, choice))
        return alone if self.interactions is None else alone + self.interactions.total(choice)

    def interaction_shares(self, choice: IntArray) -> FloatArray:
        """Return each group's half (G,) of its cross terms in a choice (G,): what groups do together, told apart."""
        if self.interactions is None:
            return np.zeros(len(self))
        return np.asarray(self.interactions.beside(choice)[np.arange(len(self)), choice] / 2)

    def cost(self, name: str) -> CostTerm:
        """Return the cost term called ``name``."""
        return cost_named(name, self.costs)

    def whole(self, bits: npt.ArrayLike) -> Whole | None:
        """Return what the whole network takes with its groups at ``bits`` (G,).

        None where nothing is said about what stays, and where candidates are only numbered.
        """
        if self.stays is None or self.candidates.numbered:
            return None
        weights = self.weights()
        sizes, widths = self.sizes[weights], np.asarray(bits, dtype=np.float64)[weights]
        groups = Fraction(0)
        for level in np.unique(widths).tolist():
            groups += Fraction(repr(level)) * int(sizes[widths == level].sum())  # bits stand for their decimals
        return Whole.of(groups, int(sizes.sum()), self.stored, self.stays)

    @property
    def conceded(self) -> float:
        """The share of samples that measuring gave up; whatever the bits, they may be decided otherwise."""
        share = self.provenance.get("conceded", 0.0)
        return float(share) if isinstance(share, (int, float)) and 0 < share < 1 else 0.0

    def notes(self, bits: npt.ArrayLike | None = None) -> list[str]:
        """Return in words, a line each, what stays as it is, and what damages do not count, at ``bits`` (G,)."""
        lines = staying_lines(self.stays or (), int(self.sizes[self.weights()].sum()))
        if self.conceded:
            share = f"{100 * self.conceded:.3g} % of the samples are conceded"
            lines.append(f"{share}: over all, the mismatch may be {self.conceded:.3g} more")
        offset = self.provenance.get("damage_offset")
        if isinstance(offset, (int, float)) and offset < 0:
            counted = "damages and bounds count from each group's smallest score"
            lines.append(f"{counted}: {offset:.6g} was taken off in all that the scores were of")
        if self.unmeasured is not None:
            lines += unmeasured_lines(self, self.unmeasured, self.kept, bits)
        return lines

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that determines the answer; not over provenance, grids and what stays."""
        state = hashlib.sha256()
        for key, value in self._canonical():
            state.update(key.encode() + b"\0")
            if isinstance(value, np.ndarray):
                state.update(f"{value.dtype.str}{value.shape}".encode())
                state.update(np.ascontiguousarray(value).data)
            else:
                state.update(repr(value).encode())
            state.update(b"\n")
        return state.hexdigest()

    def _canonical(self) -> Iterator[tuple[str, Any]]:
        """Yield what determines the answer, in a fixed order, for the digest."""
        yield "format", 1
        yield "labels", self.names.labels
        yield "shapes", self.names.shapes
        yield "layers", self.names.layers
        yield "candidates", tuple(tuple(float(b) for b in widths) for widths in self.candidates.sets)
        yield "formats", self.candidates.formats
        yield "set_of", self.candidates.set_of
        if isinstance(self.damage, PowerLaw):
            yield "sensitivity", self.damage.sensitivity
        else:
            yield "damage", self.damage.values
        if isinstance(self.interactions, Factors):
            yield "factors", self.interactions.values
        elif self.interactions is not None:
            yield "interacting", self.interactions.groups
            yield "interactions", self.interactions.values
        for name in ("sizes", "kinds", "macs", "reads"):
            yield name, getattr(self, name)
        for name in ("also_reads", "lengths", "steps"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        for term in self.costs:
            yield "cost", (term.name, term.unit)
            yield from term.canonical()
        yield "objective", sorted((k, str(v)) for k, v in self.objective.items())
        yield "bound", None if self.bound is None else str(exact_bound(self.bound))
        yield "budgets", sorted((k, str(v)) for k, v in self.budgets.items())
        yield "pins", sorted(self.pins.items())
        yield "ties", self.ties
        yield "metric", (self.metric, self.damage_unit)
        if self.unmeasured is not None:
            yield "unmeasured", self.unmeasured
            yield "free_unmeasured", self.free_unmeasured

    # -- as other things -----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Group]:
        """Yield the groups as they may be declared, one by one."""
        return (self[group] for group in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __getitem__(self, key: str | int) -> Group:
        """Return what is declared of the group of this name or number.

        Raises
        ------
        ProblemError
            Where there is none of this name, or several.
        """
        group = self.names.index_of(key) if isinstance(key, str) else range(len(self))[operator.index(key)]
        return group_at(self, self.damage, self.unmeasured, group)

    def to_dict(self) -> dict[str, Any]:
        """Return groups and goals as plain Python numbers, text, lists and dicts, which JSON takes.

        Groups stand one by one, with what is known of each; :func:`impq_opt.files.save_problem` writes everything.
        """
        names = self.names
        return {
            "groups": [group.to_dict() for group in self],
            "minimize": {name: finite(weight) for name, weight in self.objective.items()},
            "bound": None if self.bound is None else finite(self.bound),
            "budgets": {name: finite(limit) for name, limit in self.budgets.items()},
            "pins": {names[group]: self.candidates.label(group, column) for group, column in self.pins.items()},
            "ties": [[names[group] for group in tie] for tie in self.ties],
            "metric": self.metric,
            "damage_unit": self.damage_unit,
            **({} if self.interactions is None else {"interactions": str(self.interactions)}),
            "digest": self.digest,
            "provenance": plain(self.provenance),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a table of pandas, a row a group by name: layer, kind, size, fewest and most bits, and damage.

        Damage is a sensitivity, or a column for each candidate: by what it is called where all groups have the same.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        columns = group_columns(self)
        if not self.candidates.numbered:
            numbers = self.candidates.numbers(len(self))
            columns["fewest bits"] = np.array([min(widths) for widths in self.candidates.sets])[numbers]
            columns["most bits"] = np.array([max(widths) for widths in self.candidates.sets])[numbers]
        if isinstance(self.damage, PowerLaw):
            columns["sensitivity"] = self.damage.sensitivity
            if self.damage.stderr is not None:
                columns["stderr"] = self.damage.stderr
        else:
            inside = np.arange(self.candidates.width) < self.candidates.counts(len(self))[:, None]
            table = np.where(inside, self.damage.values[:, : self.candidates.width], np.nan)
            one = len(self.candidates.sets) == 1
            called = self.candidates.labels(0) if one else tuple(map(str, range(self.candidates.width)))
            columns |= {f"damage {label}": table[:, k] for k, label in enumerate(called)}
        for name in ("ranges", "macs", "lengths"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return data_frame(columns, index="name")

    def __repr__(self) -> str:
        bound = "" if self.bound is None else f", bound={float(self.bound):g}"
        return f"Problem({self._counted()}, minimize={'+'.join(self.objective)}{bound})"

    def _counted(self) -> str:
        activations = len(self) - int(self.weights().sum())
        groups = f"{len(self):,} {'group' if len(self) == 1 else 'groups'}"
        return f"{groups}, {activations:,} of activations" if activations else groups

    def _repr_html_(self) -> str:
        widths = sorted({width for one in self.candidates.sets for width in one})
        facts = [("least", " + ".join(self.objective)), ("damage", f"{self.metric}, {self.damage_unit}".rstrip(", "))]
        if self.bound is not None:
            facts.append(("bound", f"{float(self.bound):g}"))
        facts += [
            (f"budget {name}", format_quantity(limit, self.cost(name).unit)) for name, limit in self.budgets.items()
        ]
        if not self.candidates.numbered:
            facts.append(("candidates", f"{widths[0]:g} to {widths[-1]:g} bits"))
        if self.interactions is not None:
            facts.append(("interactions", str(self.interactions)))
        facts += [(what, f"{len(of):,}") for what, of in (("pins", self.pins), ("ties", self.ties)) if of]
        sizes = self.sizes.astype(np.float64)
        return card(f"Problem of {self._counted()}", facts, list(by_layer(self, sizes, "elements", mean=False)))


# Fields of a layout with a number for each group.
_VECTORS = ("kinds", "ranges", "macs", "reads", "lengths", "unmeasured")


def _vectors(kinds: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    vectors = {name: fields[name] for name in _VECTORS if name in fields}
    return vectors if kinds is None else vectors | {"kinds": kinds}


def _whole_pins(pins: Mapping[int, int]) -> dict[int, int]:
    try:
        return {operator.index(group): operator.index(column) for group, column in pins.items()}
    except (TypeError, AttributeError):
        raise ProblemError("must be a mapping of groups to columns", where="pins", value=pins) from None


def _weight(value: Any) -> Any:
    value = number_of(value)
    return Fraction(value) if isinstance(value, Decimal) else value.item() if isinstance(value, np.generic) else value


def _exact(limit: object, where: str) -> Fraction:
    return limit if isinstance(limit, Fraction) else read_exact(limit, where)
