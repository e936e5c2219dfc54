"""Questions at random: every feature of a problem, and numbers from where float64 and int64 end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from random import Random

from attacks.formulas import PEAK
from attacks.questions import Part, Question, Table
from impq_opt import ImpqError

SETS = ((2, 4), (1, 2, 3), (2, 4.25, 8), (3, 8), (4,), (1, 2, 4, 8), (0, 8), (0, 1), (8, 4, 2))
COUPLED = ("bit-operations", "adders", "slides")
# Costs of a table may add up to just below this; what is refused beyond some smaller span is counted as refused.
MOST = 1 << 61
SIZES = ("storage", "representational", "activation-memory")


def question(seed: int) -> Question:
    """Return the question of a seed."""
    rng = Random(seed)
    draw = rng.choices((_tabled, _powers, _graph, _narrow), (5, 3, 5, 2))[0]
    found = draw(rng)
    while found.count > 1500:
        found = draw(rng)
    return found


# -- numbers -----------------------------------------------------------------------------------------------------


def damages(rng: Random) -> Callable[[], float]:  # noqa: PLR0911
    """Return one way to draw damages."""
    pick = rng.randrange(9)
    if pick == 0:
        few = [rng.choice([0.0, 1.0, 0.5, 0.25]) for _ in range(3)]
        return lambda: rng.choice(few)
    if pick == 1:
        return lambda: 10.0 ** rng.uniform(-323, 300)
    if pick == 2:
        return lambda: rng.choice([0.0, 5e-324, 1e-323, 2e-323, 2.2250738585072014e-308, 1e-310])
    if pick == 3:  # sums round: only the last bits decide
        return lambda: rng.choice([0.1, 0.2, 0.3, 0.7, 1 / 3, 1e-17, 2.0**-53, 2.0**-54, 1.0])
    if pick == 4:
        tiny = rng.choice([1e-300, 2.0**-60, 1e-12])
        return lambda: rng.choice([1.0, 1.0 + 2.0**-52, 2.0, tiny, 2 * tiny, 0.0])
    if pick == 5:
        return lambda: float(rng.randrange(8))
    if pick == 6 and rng.random() < 0.2:
        return lambda: rng.choice([1e308, 1.7e308, 1.0, 0.0, 8e307])
    if pick == 7 and rng.random() < 0.2:  # not allowed
        return lambda: rng.choice([math.inf, 1.0, 0.5, 0.25, 2.0])
    decades = rng.choice([1, 6, 30])
    return lambda: 10.0 ** rng.uniform(-decades, 0)


def costs(rng: Random, groups: int) -> Callable[[], float]:
    """Return one way to draw the costs of a table for so many groups."""
    pick = rng.randrange(8)
    if pick == 0:
        return lambda: rng.randrange(4)
    if pick == 1:
        return lambda: rng.randrange(-9, 10)
    if pick in (2, 3):  # at, just below and just above powers of two, up to what is accepted
        most = (MOST - 1) // groups
        place = rng.choice(
            [most, most, most, 1 << 60, 1 << 59, 1 << 58, 1 << 53, 1 << 52, 1 << 31, 1 << rng.randrange(20, 61)]
        )
        near = min(place + rng.choice([-1, 0, 1]), most)
        signs = rng.choice([(1,), (1, -1), (1, -1), (-1,)])
        values = rng.choice([(0, 1, near, near, near - 1, near // 2), (near, near, 0, 1)])
        return lambda: rng.choice(values) * rng.choice(signs)
    if pick == 4:
        return lambda: round(rng.uniform(-1, 9), 3)
    if pick == 5 and rng.random() < 0.5:  # no decimals: read as binary, or rounded, as stated
        spread = rng.choice([0, 3, 30])
        return lambda: rng.random() * 10.0 ** rng.uniform(-spread, spread)
    return lambda: rng.randrange(1, 200)


def bound_of(rng: Random, question: Question) -> Question:
    """Return the question with a bound: attained, just missed, at the ends, or anywhere."""
    chosen = [rng.choice([d for d in part.damages() if math.isfinite(d)] or [1.0]) for part in question.parts]
    attained = sum(map(Fraction, chosen), Fraction(0))
    pick = rng.randrange(6)
    if pick < 3:
        bound = attained + (0, -1, 1)[pick] * Fraction(1, 2 ** rng.choice([53, 60, 300, 1074, 1080]))
    elif pick == 3:
        bound = attained * Fraction(rng.randrange(1, 300), 100)
    else:
        bound = attained
    if bound <= 0:
        bound = Fraction(1, 2**1074) if rng.random() < 0.5 else Fraction(rng.random())
    as_float = bound < Fraction(10) ** 300 and rng.random() < 0.3 and float(bound) > 0
    return replace(question, bound=float(bound) if as_float else bound)


def limit_of(rng: Random, question: Question, name: str) -> Fraction:
    """Return a limit on a cost: what some choice costs, one less, or anywhere."""
    from attacks.formulas import row

    found = row(question, {name: 1})
    choices = [tuple(rng.randrange(len(p.bits)) for p in question.parts) for _ in range(3)]
    value = found.at(rng.choice(choices)) * found.unit
    aside = [0 * value, 0 * value, -found.unit, found.unit / 3, abs(value) * Fraction(rng.randrange(-50, 100), 100)]
    return value + rng.choice(aside)


# -- problems ----------------------------------------------------------------------------------------------------


def _tabled(rng: Random) -> Question:
    """Tables of any form, ragged and tied, with up to three limits."""
    groups, width = rng.randrange(1, 7), rng.randrange(1, 5)
    damage, ragged, numbered = damages(rng), rng.random() < 0.3, rng.random() < 0.5
    parts = []
    for g in range(groups):
        own = rng.randrange(1, width + 1) if ragged and not numbered else width
        bits = tuple(range(width)) if numbered else tuple(sorted(rng.sample((1, 2, 3, 4, 5, 6, 8, 16), width))[:own])
        parts.append(Part(f"g{g}", bits, damage=tuple(damage() for _ in range(width))))
    if rng.random() < 0.2:  # twins
        parts[-1] = replace(parts[0], name=parts[-1].name)
    names = ["cost", *(f"t{i}" for i in range(rng.choice([0, 0, 0, 1, 2])))]
    tables = []
    for name in names:
        cost = costs(rng, groups)
        rows = [tuple(cost() for _ in range(width)) for _ in range(groups)]
        if name == "cost" and rng.random() < 0.15:  # equal ratios of cost and damage
            rows = [tuple(sorted(rng.randrange(9) for _ in range(width))) for _ in range(groups)]
            parts = [replace(p, damage=tuple(float(max(r) - v) for v in r)) for p, r in zip(parts, rows, strict=True)]
        tables.append(Table(name, tuple(rows)))
    parts = [replace(p, damage=p.damage[: len(p.bits)] if p.damage else None) for p in parts]
    weights: list[Fraction | int] = [1, 1, 1, 3, Fraction(1, 3)]
    made = Question(tuple(parts), tuple(tables), {"cost": rng.choice(weights)}, numbered=numbered)
    if len(names) > 1 and rng.random() < 0.2:
        made = replace(made, objective={"cost": 1, "t0": 2})
    return _asked(rng, _restricted(rng, made), names[1:])


def _powers(rng: Random) -> Question:
    """Sizes and sensitivities, one list of candidates or several."""
    groups = rng.randrange(1, 6)
    sets = rng.sample(SETS, rng.choice([1, 1, 2]))
    damage = damages(rng)
    size = rng.choice([1, 30, 10**6, 1 << 40, (1 << 51) // groups])
    parts = [
        Part(
            f"g{g}",
            tuple(rng.choice(sets)),
            size=rng.randrange(1, size + 1),
            sensitivity=damage(),
            kind=rng.choice(["weight", "weight", "activation"]),
        )
        for g in range(groups)
    ]
    weights: list[Fraction | int] = [1, 1, 2, Fraction(3, 7)]
    minimize = {rng.choice(SIZES[:2]): rng.choice(weights)}
    return _asked(rng, _restricted(rng, Question(tuple(parts), objective=minimize)), list(SIZES))


def _graph(rng: Random) -> Question:
    """Weights that read activations: products of precisions, adders, looked-up pairs, peaks."""
    acts = [f"a{i}" for i in range(rng.randrange(1, 4))]
    sets = rng.sample(SETS, rng.choice([1, 2]))
    damage = damages(rng)
    parts = [
        Part(
            name,
            tuple(rng.choice(sets)),
            size=rng.randrange(1, 60),
            sensitivity=damage(),
            kind="activation",
            steps=(i, i + rng.randrange(3)),
        )
        for i, name in enumerate(acts)
    ]
    for i in range(rng.randrange(1, 4)):
        length = rng.choice([1, 2, 3, 9, 64, 65])
        reads = rng.choice([*acts, *acts, ""])
        others = [a for a in acts if a != reads and rng.random() < 0.25]
        parts.append(
            Part(
                f"w{i}",
                tuple(rng.choice(sets)),
                size=length * rng.randrange(1, 9),
                sensitivity=damage(),
                macs=length * rng.randrange(1, 20),
                length=length,
                reads=reads,
                also_reads=tuple((a, length * rng.randrange(1, 9)) for a in others),
            )
        )
    names = [*COUPLED, *SIZES, PEAK]
    made = Question(tuple(parts))
    if rng.random() < 0.25:
        made = replace(made, tables=(Table("latency", lookup=_lookup(rng, made)),))
        names.append("latency")
    elif rng.random() < 0.25:
        cost = costs(rng, len(parts))
        width = max(len(p.bits) for p in parts)
        made = replace(made, tables=(Table("t", tuple(tuple(cost() for _ in range(width)) for _ in parts)),))
        names.append("t")
    first = rng.choice(names)
    minimize: dict[str, Fraction | int] = {first: 1}
    if first != PEAK and rng.random() < 0.2:
        minimize |= {rng.choice([n for n in names if n not in (PEAK, first)]): rng.choice([1, 3])}
    return _asked(rng, _restricted(rng, replace(made, objective=minimize)), names)


def _lookup(rng: Random, question: Question) -> dict[str, dict[tuple[float, float], Fraction]]:
    places = question.places
    worth = rng.choice([Fraction(1), Fraction(1, 1000), Fraction(10**9)])
    return {
        part.name: {
            (float(w), float(a)): rng.randrange(-5, 40) * worth
            for w in part.bits
            for a in ((8,) if not part.reads else question.parts[places[part.reads]].bits)
        }
        for part in question.parts
        if part.kind == "weight"
    }


def _narrow(rng: Random) -> Question:
    """Two candidates a group, one of them free: knapsacks, subset sums, hardly any ratio apart."""
    groups, spread = rng.randrange(2, 9), rng.choice([5, 100, 10**6, 1 << 40])
    gain = [rng.randrange(1, spread + 1) for _ in range(groups)]
    shift = rng.choice([0, spread // 10 + 1])
    worth = rng.choice([1.0, 0.1, 2.0**-1060, 1e-300])
    parts = tuple(Part(f"g{g}", (0, 1), damage=(v * worth, 0.0)) for g, v in enumerate(gain))
    table = Table("cost", tuple((0, v + shift) for v in gain))
    made = Question(parts, (table,), {"cost": 1}, numbered=rng.random() < 0.5)
    return _asked(rng, _restricted(rng, made), [])


def _restricted(rng: Random, question: Question) -> Question:
    """Pin and tie a few groups."""
    parts, pins, ties = question.parts, {}, []
    if rng.random() < 0.3:
        for g in rng.sample(range(len(parts)), min(len(parts), rng.choice([1, 1, 2]))):
            pins[g] = rng.randrange(len(parts[g].bits))
    if len(parts) > 1 and rng.random() < 0.3:
        places = rng.sample(range(len(parts)), min(len(parts), rng.choice([2, 2, 3])))
        shared = set.intersection(*(set(parts[g].bits) for g in places))
        pinned = {parts[g].bits[pins[g]] for g in places if g in pins}
        if shared and len(pinned) < 2 and pinned <= shared:
            ties.append(tuple(sorted(places)))
    return replace(question, pins=pins, ties=tuple(ties))


def _asked(rng: Random, question: Question, names: list[str]) -> Question:
    """Ask for the least cost under a bound or the least damage under a budget, with up to three further limits."""
    try:
        return _limited(rng, question, names)
    except ImpqError:  # a table that is refused: the refusal is what is looked at
        return replace(question, bound=1.0)


def _limited(rng: Random, question: Question, names: list[str]) -> Question:
    kept = [n for n in names if n not in question.objective]
    more = rng.sample(kept, min(len(kept), rng.choice([0, 0, 1, 1, 2, 3])))
    limits = {name: limit_of(rng, question, name) for name in more}
    question = replace(question, budgets={name: limit for name, limit in limits.items() if limit > 0})
    if rng.random() < 0.35:
        whole = replace(question, budget=Fraction(1))
        value = whole.row.at(tuple(rng.randrange(len(p.bits)) for p in question.parts)) * whole.row.unit
        asides = [0 * value, 0 * value, Fraction(1), Fraction(-1), abs(value) / 3]
        return replace(question, budget=value + rng.choice(asides))
    return bound_of(rng, question)
