"""The goals of a solve, as the commands ask for them: bound, budgets, pins, ties, candidates, strategy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._common import find_problem, parse_assignments, parse_bits, parse_tie
from impq_opt.costs import cost_named, format_quantity
from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.files.revision import Revision
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.problem.stays import Whole
from impq_opt.proof.infeasible import quantity_text

__all__ = [
    "ActivationBits",
    "Goals",
    "Many",
    "activation_pins",
    "cost_unit",
    "damage_name",
    "diagnosis_text",
    "limit_text",
    "percent",
    "question_text",
    "unknown_text",
    "whole_text",
]

Many = Parameter(negative="", consume_multiple=False)
ActivationBits = Annotated[str | None, Parameter(help="Bits of every activation: --pin kind:activation=B.")]


def activation_pins(activation_bits: str | None, pins: list[str], *, weights_only: bool) -> dict[str, float | str]:
    """Return the bits by pattern that ``--pin`` and ``--activation-bits`` ask for."""
    if weights_only and activation_bits is not None:
        raise OptionError(
            "--weights-only leaves no activations",
            where="--activation-bits",
            value=activation_bits,
            hint="give one of the two",
        )
    own = [] if activation_bits is None else [f"kind:activation={activation_bits}"]
    return dict(parse_assignments([*pins, *own], "--pin"))


@Parameter(name="*")
@dataclass(frozen=True)
class Goals:
    """What is asked of a problem, on top of what its file says."""

    bound: Annotated[float | None, Parameter(help="Largest damage allowed: the mismatch bound p_m.")] = None
    budget: Annotated[
        list[str],
        Many,
        Parameter(
            help="Largest cost, such as 100KiB: asks for the least damage under it. NAME=VALUE, such as storage=2MiB, "
            "is a further budget beside a bound. May be repeated."
        ),
    ] = field(default_factory=list)
    minimize: Annotated[
        list[str],
        Many,
        Parameter(help="Cost to minimize, such as storage. NAME=WEIGHT, repeated, is a weighted sum of several."),
    ] = field(default_factory=list)
    pin: Annotated[
        list[str],
        Many,
        Parameter(
            help="NAME=B gives all groups that NAME means B bits: a name, a layer, 'layer1.*', kind:weight or "
            "type:Linear. May be repeated."
        ),
    ] = field(default_factory=list)
    activation_bits: ActivationBits = None
    weights_only: Annotated[
        bool, Parameter(negative="", help="Leave activations as they are: neither cost nor damage counts them.")
    ] = False
    tie: Annotated[list[str], Many, Parameter(help="A,B gives the groups equal bits. May be repeated.")] = field(
        default_factory=list
    )
    bits: Annotated[str | None, Parameter(help="Keep only these candidates: 1:8, or 2,4,8.")] = None
    free_unmeasured: Annotated[
        bool,
        Parameter(
            negative="",
            help="Let groups of no known damage take any bits; otherwise they keep their most.",
        ),
    ] = False
    confidence: Annotated[
        float | None, Parameter(help="Take measured damages at their upper confidence limit, such as 0.95.")
    ] = None

    def load(self, name: str) -> tuple[Problem, Problem, Revision]:
        """Return the problem of the file, the problem as revised by these goals, and the revision."""
        base = find_problem(name)
        plain = [text for text in self.budget if "=" not in text]
        if len(plain) > 1:
            raise OptionError(
                "more than one plain budget", where="--budget", value=plain, hint="name them: storage=2MiB"
            )
        budgets = parse_assignments([text for text in self.budget if "=" in text], "--budget")
        for cost in budgets:
            cost_named(cost, base.costs)
        revision = Revision(
            pins=activation_pins(self.activation_bits, self.pin, weights_only=self.weights_only),
            ties=[parse_tie(text) for text in self.tie],
            bits=None if self.bits is None else parse_bits(self.bits),
            budgets=budgets,
            confidence=self.confidence,
            free_unmeasured=self.free_unmeasured,
            weights_only=self.weights_only,
        )
        return base, revision.apply(base) if revision else base, revision

    def questions(self) -> dict[str, Any]:
        """Return the keywords of :func:`impq_opt.solve` that stand for bound, budget and cost."""
        plain = [text for text in self.budget if "=" not in text]
        return {"bound": self.bound, "budget": plain[0] if plain else None, "minimize": self._minimize()}

    def _minimize(self) -> str | dict[str, float] | None:
        if not self.minimize:
            return None
        if len(self.minimize) == 1 and "=" not in self.minimize[0]:
            return self.minimize[0]
        weights = parse_assignments(self.minimize, "--minimize")
        try:
            return {name: float(weight) for name, weight in weights.items()}
        except ValueError:
            raise OptionError("a weight must be a number", where="--minimize", value=weights) from None


def question_text(allocation: Allocation) -> str:
    """Return the question that ``allocation`` answers, in one line."""
    cost = " + ".join(
        name if weight == 1 else f"{nearest_float(weight):g} {name}" for name, weight in allocation.cost_weights.items()
    )
    limits = []
    if allocation.bound is not None:
        limits.append(f"{damage_name(allocation.problem)} <= {nearest_float(allocation.bound):g}")
    limits += [f"{name} <= {limit_text(allocation.problem, name, limit)}" for name, limit in allocation.budgets.items()]
    least = cost if allocation.minimizes == "cost" else damage_name(allocation.problem)
    return f"least {least} with {' and '.join(limits)}"


def cost_unit(allocation: Allocation) -> str:
    """Return the unit of the minimised cost; none where costs of several units are added."""
    units = {allocation.problem.cost(name).unit for name in allocation.cost_weights}
    return units.pop() if len(units) == 1 else ""


def percent(gap: float) -> str:
    """Return a gap for people."""
    return "unknown" if gap == math.inf else "0" if gap == 0 else f"{gap * 100:.2g} %"


def diagnosis_text(allocation: Allocation) -> str:
    """Return why nothing is feasible, costs with their units."""
    diagnosis, problem = allocation.diagnosis, allocation.problem
    if diagnosis is None or diagnosis.limit == "damage":
        return str(diagnosis or "")
    name = "+".join(allocation.cost_weights) if diagnosis.limit == "cost" else diagnosis.limit
    try:
        units = {problem.cost(part).unit for part in name.split("+")}
    except OptionError:  # a part of a cost, such as one step of a peak
        return str(diagnosis)
    unit = units.pop() if len(units) == 1 else ""
    smallest, allowed = quantity_text(diagnosis.smallest, unit), quantity_text(diagnosis.allowed, unit, up=True)
    if smallest == allowed:
        return str(diagnosis)
    without = "" if diagnosis.without is None else quantity_text(diagnosis.without, unit, up=True)
    return replace(diagnosis, limit=name).sentence(smallest, allowed, without)


def damage_name(problem: Problem) -> str:
    """Return what the damage is called: the mismatch bound, or the metric's name."""
    return "mismatch bound" if problem.damage_unit == "mismatch probability bound" else f"damage ({problem.metric})"


def whole_text(whole: Whole) -> str:
    """Return what a whole network takes of what it is stored in, in words."""
    ratio = "" if whole.ratio is None else f" (ratio {nearest_float(whole.ratio):.2f})"
    size, stored = format_quantity(whole.bits, "bit"), format_quantity(whole.stored, "bit")
    return f"{size} of {stored}{ratio}, {nearest_float(whole.mean):.3f} bits a parameter"


def unknown_text(allocation: Allocation) -> str:
    """Return of how many groups the damage lacks, in words; empty where it lacks none."""
    count = len(allocation.unknown)
    return f"without {count:,} {'group' if count == 1 else 'groups'} of no known damage" if count else ""


def limit_text(problem: Problem, name: str, limit: Any) -> str:
    """Return a budget with its unit."""
    units = {problem.cost(part).unit for part in name.split("+")}
    return format_quantity(limit, units.pop() if len(units) == 1 else "")
