"""The answer: which precision each group gets, what is claimed about it, and what proves the claim."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from impq_opt.costs import format_quantity
from impq_opt.documents.numbers import exact_value
from impq_opt.errors import AllocationError
from impq_opt.exactness.sums import nearest_float
from impq_opt.groups.arrays import ACTIVATION, WEIGHT
from impq_opt.groups.held import Held, held
from impq_opt.problem.card import by_layer, card
from impq_opt.problem.frame import data_frame, group_columns
from impq_opt.problem.plain import finite, fraction_text, number, plain
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Whole
from impq_opt.problem.unmeasured import unknown_groups
from impq_opt.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Allocation", "Certificate", "Diagnosis", "Enumeration", "Status", "Stop", "Together"]


class Status(enum.Enum):
    """What is known about the answer; set by :func:`impq_opt.solve` alone."""

    OPTIMAL = "optimal"  # feasible, and a checked lower bound meets the objective
    FEASIBLE = "feasible"  # feasible, and the gap is open
    INFEASIBLE = "infeasible"  # proved: no allocation meets the limits
    UNKNOWN = "unknown"  # no feasible allocation was found and none was ruled out


class Stop(enum.Enum):
    """Why a solver stopped."""

    COMPLETED = "completed"
    TIME_LIMIT = "time limit"
    MEMORY_LIMIT = "memory limit"
    STATE_LIMIT = "state limit"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Enumeration:
    """A claim that every assignment of a core was covered, in exact arithmetic.

    Parameters
    ----------
    groups : int
        Groups of the core: those with more than one choice whose reduced cost does not exceed the gap.
    states : int
        Partial assignments that were looked at.
    by : str
        Whose word it is: a strategy of this package, by name, or ``"recount"`` where another's was repeated.
    """

    groups: int
    states: int
    by: str = ""


@dataclass(frozen=True, eq=False)
class Certificate(Held):
    """What proves the lower bound.

    ``dual_bound`` follows from ``multipliers`` alone: for any lambda >= 0 the sum over groups of
    min_k (cost + lambda damage), less lambda times the bound, is below every feasible cost (Everett 1963).
    Anything above it rests on ``enumeration``. Where damages interact by factors F it follows with ``tangent`` y: the
    damage is then ``d - |F|^2 + 2 <y, F>`` in each group, less ``|y|^2`` in all, which is never above it.

    Parameters
    ----------
    multipliers : mapping of str to float
        One per limit (``"bound"``, or the name of a budget), in ``quantum`` per unit of the limited quantity
        (damage, or quanta of the budget); in damage per quantum where damage is minimised.
    quantum : Fraction
        What one integer of cost is worth in the cost's unit.
    dual_bound : Fraction or float
        In the objective's unit, rounding accounted for; -inf where there are no multipliers.
    enumeration : Enumeration, optional
    tangent : ndarray of float64 (r,), optional
    """

    multipliers: Mapping[str, float]
    quantum: Fraction
    dual_bound: Fraction | float
    enumeration: Enumeration | None = None
    tangent: FloatArray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, what is exact as fractions."""
        found = self.enumeration
        by = {"by": found.by} if found is not None and found.by else {}
        tangent = {} if self.tangent is None else {"tangent": self.tangent.tolist()}
        return {
            "multipliers": {name: float(value) for name, value in self.multipliers.items()},
            "quantum": str(self.quantum),
            "dual_bound": fraction_text(self.dual_bound),
            "enumeration": None if found is None else {"groups": found.groups, "states": found.states, **by},
        } | tangent


@dataclass(frozen=True)
class Diagnosis(Held):
    """Why nothing is feasible: a conflict, and what one limit of it comes down to under the rest of it.

    Parameters
    ----------
    limit : str
        The limit that cannot be met: "damage", or the name of a cost.
    smallest : float
        The smallest value of it that can be reached under exactly the rest of the conflict; rounded down to a float64,
        damages within two of the last place.
    allowed : float
        What the limit allows, rounded up to a float64.
    held_by : tuple of str
        The rest of the conflict in words, in its order. Where damage is held by nothing but pins and ties, then the
        groups that have most of it.
    conflict : tuple of (str, str)
        ("bound", ""), ("budget", cost), ("pins", label) and ("ties", label). With nothing but these limits, pins and
        ties the problem is infeasible. Empty where it is not known.
    minimal : bool
        Whether each of the conflict is needed: with any one of them left out the problem is feasible.
    attained : bool
        Whether ``smallest`` is reached; else it is a lower bound.
    without : float, optional
        The smallest value without the rest of the conflict, rounded up; None where there is no rest or it is not known.
    """

    limit: str
    smallest: float
    allowed: float
    held_by: tuple[str, ...] = ()
    conflict: tuple[tuple[str, str], ...] = ()
    minimal: bool = True
    attained: bool = True
    without: float | None = None

    def __str__(self) -> str:
        for digits in range(6, 18):
            smallest, allowed = rounded(self.smallest, digits), rounded(self.allowed, digits, up=True)
            if float(smallest) > float(allowed):
                break
        return self.sentence(smallest, allowed, "" if self.without is None else rounded(self.without, 6, up=True))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; what no float64 reaches is None."""
        return {
            "limit": self.limit,
            "smallest": self.smallest,
            "allowed": finite(self.allowed),
            "held_by": list(self.held_by),
            "conflict": [list(item) for item in self.conflict],
            "minimal": self.minimal,
            "attained": self.attained,
            "without": self.without,
        }

    def sentence(self, smallest: str, allowed: str, without: str) -> str:
        """Return the diagnosis with its values written as given."""
        text = f"the smallest reachable {self.limit} is "
        if self.smallest > self.allowed:
            text += f"{'' if self.attained else 'at least '}{smallest}, above {allowed}"
        else:  # by less than a float64 tells
            text += f"above {allowed}"
        held = list(self.held_by)
        rest = min(len(held), max(len(self.conflict) - 1, 0))
        if rest and without:
            alone = rest == 1 and not held[0].startswith("the pins")
            held[rest - 1] += f" (without {'it' if alone else 'them'} {without})"
        text += f"; held there by {'; '.join(held)}" if held else ""
        return text if self.minimal else f"{text}; that all of this is needed could not be shown"


@dataclass(frozen=True)
class Together:
    """What of a damage groups do together, beyond what each does alone, and its standard error where that is known."""

    damage: Fraction
    stderr: float | None

    @property
    def below_noise(self) -> bool:
        """Whether it is smaller than its standard error."""
        return self.stderr is not None and abs(self.damage) < self.stderr

    def line(self, total: Fraction) -> str:
        """Return in words how much of a ``total`` it is."""
        error = "" if self.stderr is None else f" +- {self.stderr:.2g}"
        share = "" if total <= 0 else f", {100 * nearest_float(self.damage / total):.3g} % of it,"
        told = f"of the damage {nearest_float(self.damage):.6g}{error}{share} is what groups do together"
        return f"{told}: below the noise of its measurement" if self.below_noise else told

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "damage": finite(nearest_float(self.damage)),
            "stderr": self.stderr,
            "below_noise": self.below_noise,
        }


@dataclass(frozen=True, eq=False)
class Allocation(Held):
    """One answer to one problem. Nothing in it can be written to: what was checked stays what was checked.

    ``allocation["conv1"]`` is the precision of a group, ``allocation["layer1.*"]`` an array of several, and a loop goes
    over names and precisions. Two are equal where problem, question, choice, value and lower bound are.

    Parameters
    ----------
    problem : Problem
    status : Status
    choice : ndarray of int64 (G,), optional
        Column of the candidate that each group takes, in the problem's own tables; None where there is no answer.
    minimizes : {"cost", "damage"}
    exact_cost : Fraction, optional
        Of ``cost_weights``, in their unit.
    exact_damage : Fraction, optional
        Sum of the float64 damages without rounding.
    lower_bound_exact : Fraction or float
        No allocation has a smaller objective; -inf where nothing is known.
    bound : Fraction, optional
        Limit on damage.
    budgets : mapping of str to Fraction
        Limits on costs.
    stated : mapping
        What a file says beside the exact values, for people; :func:`impq_opt.verify` checks it.
    origin : Problem, optional
        The problem of the file that the answer was read beside, where it says to answer a revision of it.
    """

    problem: Problem
    status: Status
    choice: IntArray | None
    minimizes: str
    cost_weights: Mapping[str, Fraction | int | float]
    exact_cost: Fraction | None
    exact_damage: Fraction | None
    exact_lower_bound: Fraction | float
    bound: Fraction | None
    budgets: Mapping[str, Fraction]
    # How an answer came about is no part of what it says: without it equal answers are equal.
    certificate: Certificate | None = field(default=None, compare=False)
    diagnosis: Diagnosis | None = field(default=None, compare=False)
    solver: str = field(default="", compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    seed: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)
    stop: Stop = field(default=Stop.COMPLETED, compare=False)
    statistics: Mapping[str, Any] = field(default_factory=dict, compare=False)
    stated: Mapping[str, Any] = field(default_factory=dict, compare=False)
    origin: Problem | None = field(default=None, compare=False)

    def _need(self) -> IntArray:
        if self.choice is None:
            raise AllocationError(
                f"there is no allocation: the status is {self.status.value}",
                hint=str(self.diagnosis) if self.diagnosis else "",
            )
        return self.choice

    @cached_property
    def bits(self) -> npt.NDArray[np.float64] | IntArray:
        """Precision (G,) of each group; integers where all candidates are whole."""
        bits = self.problem.candidates.bits(self._need())
        whole = all(float(b).is_integer() for widths in self.problem.candidates.sets for b in widths)
        return held(bits.astype(np.int64) if whole else bits)

    @property
    def exact_objective(self) -> Fraction | None:
        """The minimised quantity, exactly."""
        return self.exact_cost if self.minimizes == "cost" else self.exact_damage

    @property
    def objective(self) -> int | float:
        """The minimised quantity: an int where it is whole, else the nearest float64."""
        self._need()
        assert self.exact_objective is not None
        return number(self.exact_objective)

    @property
    def lower_bound(self) -> int | float:
        """No allocation has a smaller objective; rounded down to a float64 where it is not whole."""
        return number(self.exact_lower_bound)

    @property
    def gap(self) -> float:
        """(objective - lower bound) / objective; 0 where they are equal, inf where nothing is known."""
        objective, below = self.exact_objective, self.exact_lower_bound
        if objective is None or below == -math.inf:
            return math.inf
        if self.status is Status.OPTIMAL or objective <= below:
            return 0.0
        return nearest_float((objective - Fraction(below)) / abs(objective)) if objective else math.inf

    @property
    def cost(self) -> int | float:
        """The cost, in the unit of the problem's objective."""
        self._need()
        assert self.exact_cost is not None
        return number(self.exact_cost)

    @property
    def damage(self) -> float:
        """The exact sum of damages, rounded once to the nearest float64; inf where it is out of range."""
        self._need()
        assert self.exact_damage is not None
        return nearest_float(self.exact_damage)

    @cached_property
    def together(self) -> Together | None:
        """What of the damage groups do together; None where damages do not interact."""
        interactions = self.problem.interactions
        if interactions is None:
            return None
        choice = self._need()
        return Together(interactions.total(choice), interactions.error(choice))

    def notes(self) -> list[str]:
        """Return in words, a line each, what of the damage is interaction, and :meth:`Problem.notes` at these bits."""
        lines = []
        if self.together is not None and self.exact_damage is not None:
            lines.append(self.together.line(self.exact_damage))
        return lines + self.problem.notes(self.bits)

    @property
    def effective_bits(self) -> tuple[float | None, float | None]:
        """Sum N B / sum N over weight groups and over activation groups; None where there are none.

        Of the groups alone, B_w,eff and B_a,eff of the IMPQ paper: :attr:`whole` is about the whole network.
        """
        kinds = self.problem.kinds
        return self._effective(kinds, WEIGHT), self._effective(kinds, ACTIVATION)

    def _effective(self, kinds: Any, kind: int) -> float | None:
        if self.problem.candidates.numbered:
            return None
        sizes, bits = self.problem.sizes, self.bits
        if kinds is None:
            return float(np.dot(sizes, bits) / sizes.sum()) if kind == WEIGHT else None
        inside = kinds == kind
        if not inside.any():
            return None
        return float(np.dot(sizes[inside], bits[inside]) / sizes[inside].sum())

    @property
    def compression_ratio(self) -> float | None:
        """16 sum N / sum N B over weight groups (IMPQ slides), not of the network; None where there are no bits."""
        effective = self.effective_bits[0]
        return 16 / effective if effective else None

    @cached_property
    def unknown(self) -> IntArray:
        """The groups whose damage nobody knows and :attr:`damage` lacks: unmeasured, and below 16 bits."""
        groups = unknown_groups(self.problem.unmeasured, self.bits, numbered=self.problem.candidates.numbered)
        return held(groups)

    @cached_property
    def whole(self) -> Whole | None:
        """What the whole network takes; None where the problem does not say what of it is in no group."""
        return self.problem.whole(self.bits)

    def __repr__(self) -> str:
        if self.choice is None:
            return f"Allocation({self.status.value}, {len(self.problem):,} groups)"
        return (
            f"Allocation({self.status.value}, {len(self.problem):,} groups, objective={self.objective}, "
            f"lower_bound={self.lower_bound}, damage={self.damage:.6g})"
        )

    # -- as other things -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.problem)

    def __iter__(self) -> Iterator[tuple[str, int | float]]:
        """Yield the name of each group and its precision."""
        return zip(self.problem.names, self.bits.tolist(), strict=True)

    def __contains__(self, name: object) -> bool:
        return name in self.problem

    @overload
    def __getitem__(self, key: int) -> int | float: ...
    @overload
    def __getitem__(self, key: str | slice | IntArray) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        """Return the precision of the group of this name or number; of what means several, an array (n,).

        A label, a layer and any other pattern of :meth:`Problem.select` mean several.
        """
        if isinstance(key, str):
            place = self.problem.names.place_of(key)
            key = self.problem.select(key) if place is None else place
        found = self.bits[key]
        return found.item() if isinstance(found, np.generic) else found

    def to_dict(self) -> dict[str, Any]:
        """Return everything about the answer as plain Python numbers, text, lists and dicts, which JSON takes.

        What is exact stands as a fraction in ``"exact"``. An infinite number is None.
        """
        answered = self.choice is not None
        weight, activation = self.effective_bits if answered else (None, None)
        record: dict[str, Any] = {
            "status": self.status.value,
            "minimizes": self.minimizes,
            "minimize": {name: exact_value(weight) for name, weight in self.cost_weights.items()},
            "objective": finite(self.objective) if answered else None,
            "lower_bound": finite(self.lower_bound),
            "gap": finite(self.gap),
            "cost": finite(self.cost) if answered else None,
            "damage": finite(self.damage) if answered else None,
            "bound": None if self.bound is None else finite(nearest_float(self.bound)),
            "budgets": {name: exact_value(limit) for name, limit in self.budgets.items()},
            "compression_ratio": self.compression_ratio if answered else None,
            "effective_bits": {"weight": weight, "activation": activation},
            "solver": self.solver,
            "options": plain(self.options),
            "seed": self.seed,
            "seconds": self.seconds,
            "stop": self.stop.value,
            "exact": {
                "cost": fraction_text(self.exact_cost),
                "damage": fraction_text(self.exact_damage),
                "lower_bound": fraction_text(self.exact_lower_bound),
                "bound": fraction_text(self.bound),
            },
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_dict(),
            "statistics": plain(self.statistics),
            "bits": dict(self) if answered else None,
        }
        if answered and self.whole is not None:
            record["whole"] = self.whole.to_dict()
        if answered and self.together is not None:
            record["together"] = self.together.to_dict()
        if answered and len(self.unknown):
            record["unknown"] = [self.problem.names[g] for g in self.unknown.tolist()]
        if answered and self.problem.candidates.formats:
            record["formats"] = dict(zip(self.problem.names, self._formats(), strict=True))
        return record

    def _formats(self) -> list[str]:
        candidates, choice = self.problem.candidates, self._need()
        sets = candidates.numbers(len(choice)).tolist()
        return [candidates.formats[s][k] for s, k in zip(sets, choice.tolist(), strict=True)]

    def to_frame(self) -> pd.DataFrame:
        """Return a table of pandas, a row a group by name: layer, kind, size, bits and damage.

        Where damages interact ``"together"`` is each group's half of its cross terms.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        problem, choice = self.problem, self._need()
        columns = group_columns(problem) | {"bits": self.bits}
        if problem.candidates.formats:
            columns["format"] = self._formats()
        columns["damage"] = problem.damage.chosen(problem.candidates, choice)
        if problem.interactions is not None:
            columns["together"] = problem.interaction_shares(choice)
        return data_frame(columns, index="name")

    def _repr_html_(self) -> str:
        names = " + ".join(self.cost_weights)
        facts = [("status", self.status.value)]
        pictures: list[str] = []
        if self.choice is None:
            facts.append(("why", str(self.diagnosis or self.stop.value)))
        else:
            units = {self.problem.cost(name).unit for name in self.cost_weights}
            facts.append((names, format_quantity(self.cost, units.pop() if len(units) == 1 else "")))
            limit = "" if self.bound is None else f" of {nearest_float(self.bound):.6g}"
            facts.append((f"damage ({self.problem.metric})", f"{self.damage:.6g}{limit}"))
            if self.together is not None:
                facts.append(("together", f"{nearest_float(self.together.damage):.6g}"))
            facts.append(("gap", "unknown" if self.gap == math.inf else f"{self.gap:.3g}"))
            what = "candidate" if self.problem.candidates.numbered else "bits"
            most = max(map(max, self.problem.candidates.sets))
            pictures += by_layer(self.problem, self.bits.astype(np.float64), what, most=most, mean=True)
        return card(f"Allocation of {len(self):,} {'group' if len(self) == 1 else 'groups'}", facts, pictures)


def rounded(value: float, digits: int, *, up: bool = False) -> str:
    """Return ``value`` as a decimal, whole numbers in full, others rounded down to so many digits, or up."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    exact = Decimal(repr(value))  # a float64 stands for its shortest decimal
    short = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR).plus(exact)
    return repr(float(short)).removesuffix(".0")
