"""The goals of a solve, as the commands ask for them: bound, budgets, pins, ties, candidates, strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from impq_opt.cli._choices import COSTS
from impq_opt.cli._common import bare_units, find_problem, parse_assignments, parse_bits, parse_budgets, parse_tie, say
from impq_opt.cli._screen import counted
from impq_opt.costs import cost_named, format_quantity, is_bare, is_mean_bits
from impq_opt.errors import OptionError
from impq_opt.exactness.sums import nearest_float
from impq_opt.files.revision import Revision
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.limits import read_limit
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
            help="Largest cost, such as 100KiB or 4.5bpw (mean bits of the weights): asks for the least damage under "
            "it. NAME=VALUE, such as storage=2MiB, is a further budget beside a bound. May be repeated, or have commas "
            "between."
        ),
    ] = field(default_factory=list)
    minimize: Annotated[
        list[str],
        Many,
        COSTS,
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
    bits: Annotated[
        str | None,
        Parameter(
            help="One number, such as 4.5: the most bits of the weights on average, as a budget of 4.5bpw. A range or "
            "a list, 1:8 or 2,4,8: keep only these candidates."
        ),
    ] = None
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
        if self._mean():
            read_limit(base, "storage", self._mean(), "--bits")
        budgets = self._named(base)
        pins = activation_pins(self.activation_bits, self.pin, weights_only=self.weights_only)
        revision = Revision(
            pins=_by_name(base.revise(weights_only=self.weights_only), pins),
            ties=[parse_tie(text) for text in self.tie],
            bits=None if self.bits is None or self._mean() else parse_bits(self.bits),
            budgets=budgets,
            confidence=self.confidence,
            free_unmeasured=self.free_unmeasured,
            weights_only=self.weights_only,
        )
        return base, revision.apply(base) if revision else base, revision

    def _named(self, base: Problem) -> dict[str, str]:
        """Return the budgets beside a bound by their costs, each looked at where its option is known."""
        budgets = parse_budgets(self.budget)[1]
        for cost, text in budgets.items():
            cost_named(cost, base.costs, where="--budget")
            read_limit(base, cost, text, f"--budget {cost}")
        if self.bound is not None and self._mean():
            if "storage" in budgets:
                raise OptionError("is a budget of storage, as is --budget", where="--bits", value=self.bits)
            budgets["storage"] = self._mean()
        return budgets

    def _mean(self) -> str:
        """Return the size that --bits asks for, where it is one number, with its unit or without."""
        text = (self.bits or "").strip()
        return text if is_mean_bits(text) else f"{text}bpw" if is_bare(text) else ""

    def _plain(self) -> list[str]:
        plain = parse_budgets(self.budget)[0]
        if len(plain) > 1:
            raise OptionError(
                "more than one plain budget",
                where="--budget",
                value=" and ".join(plain),
                hint="name them: --budget storage=2MiB",
            )
        return plain

    def questions(self) -> dict[str, Any]:
        """Return the keywords of :func:`impq_opt.solve` that stand for bound, budget and cost."""
        plain = self._plain()
        if plain and self._mean():
            raise OptionError("give one size", where="--budget, --bits", value=f"{plain[0]} and {self.bits}")
        if plain and self.bound is not None:
            raise OptionError(
                "give a bound (least cost) or a budget (least damage), not both",
                where="--bound, --budget",
                hint=f"a budget beside a bound has a name: --budget storage={plain[0]}",
            )
        if self._mean() and self.bound is None:
            plain = [self._mean()]
        return {"bound": self.bound, "budget": plain[0] if plain else None, "minimize": self._minimize()}

    def say_units(self, base: Problem, memory_limit: str | None = None) -> None:
        """Say in which unit bare numbers were taken; when all is done, so that what is refused is one sentence."""
        named = parse_budgets(self.budget)[1]
        budgets = [(f"--budget {cost}=", text, cost_named(cost, base.costs).unit) for cost, text in named.items()]
        budgets += [("--budget ", text, _unit(base, self._minimize())) for text in self._plain()]
        for note in bare_units(budgets, memory_limit):
            say(note)

    def given(self) -> list[str]:
        """Return the names of the options that were given."""
        default = Goals()
        names = [part.name for part in fields(self) if getattr(self, part.name) != getattr(default, part.name)]
        return [f"--{name.replace('_', '-')}" for name in names]

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


def _by_name(problem: Problem, pins: Mapping[str, float | str]) -> dict[str, Any]:
    """Return pins with labels for types of layers: a file's answer must not change with what its digest leaves out."""
    named: dict[str, float | str] = {}
    for pattern, precision in pins.items():
        groups = problem.find(pattern) if pattern.startswith("type:") else None
        places = [] if groups is None else np.unique(problem.names.label_of[groups]).tolist()
        labels = [problem.names.labels[place] for place in places] or [pattern]
        if any(named.get(label, precision) != precision for label in labels):
            return dict(pins)  # two pins of one group, which whoever reads the patterns tells
        named |= dict.fromkeys(labels, precision)
    return named


def _unit(problem: Problem, minimize: str | dict[str, float] | None) -> str:
    names = [minimize] if isinstance(minimize, str) else list(minimize or problem.objective)
    units = {cost_named(name, problem.costs, where="--minimize").unit for name in names}
    return units.pop() if len(units) == 1 else ""


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
    return f"without {counted(count, 'group')} of no known damage" if count else ""


def limit_text(problem: Problem, name: str, limit: Any) -> str:
    """Return a budget with its unit."""
    units = {problem.cost(part).unit for part in name.split("+")}
    return format_quantity(limit, units.pop() if len(units) == 1 else "")
