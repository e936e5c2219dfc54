"""Attack: the arithmetic itself, on extreme arrays, against fractions and whole numbers of Python."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np

from attacks import draws
from attacks.core import Attack, Fault, Step
from attacks.questions import Question

KIND = "numbers"
_ONE = 1 << 1074
_EXTREMES = (
    0.0, -0.0, 5e-324, 1e-323, 2.2250738585072014e-308, 2.225073858507201e-308, 2.0**-53, 2.0**-52, 1.0, 1.0 - 2.0**-53,
    1.0 + 2.0**-52, 2.0**53, 2.0**53 - 1, 2.0**63, 1e300, 8.98846567431158e307, 1.7976931348623157e308,
)  # fmt: skip


def attack(seed: int) -> Attack:
    """Sum and round what the seed draws, and bound a question of the seed with multipliers of any size."""
    found, rng = Attack(seed), Random(seed)
    said: list[str] = []
    for check in (_sums, _whole_sums, _roundings, _rows, _dual):
        with Step(check.__name__.strip("_")) as step:
            for what in check(rng, said):
                found.faults.append(Fault(KIND, seed, what))
        if step.fault:
            found.faults.append(Fault(KIND, seed, step.fault))
    found.digest = hashlib.sha256("\n".join(said).encode()).hexdigest()
    return found


def floats(rng: Random, count: int) -> list[float]:
    """Return floats of one of several kinds: all decades, extremes, cancelling, equal."""
    pick = rng.randrange(5)
    if pick == 0:
        return [rng.choice((-1, 1)) * 10.0 ** rng.uniform(-323, 307) for _ in range(count)]
    if pick == 1:
        return [rng.choice((-1, 1)) * rng.choice(_EXTREMES) for _ in range(count)]
    if pick == 2:
        half = [math.ldexp(rng.random(), rng.randrange(-1000, 1000)) for _ in range(count // 2)]
        values = half + [-v for v in half]
        rng.shuffle(values)
        return [*values, 5e-324]
    if pick == 3:
        return [rng.choice(_EXTREMES)] * count
    return [math.ldexp(rng.random(), rng.randrange(-30, 30)) for _ in range(count)]


def _count(rng: Random) -> int:
    return rng.choice([0, 1, 2, 7, 255, 256, 257, 1023, 1024, 1025, rng.randrange(3000)])


def _sums(rng: Random, said: list[str]) -> Iterator[str]:
    from impq_opt.exactness.sums import exact_sum, exact_units

    values = floats(rng, _count(rng))
    truth = sum(map(_units, values))
    array = np.array(values)
    if rng.random() < 0.3 and len(values) > 2:  # neither contiguous nor flat
        array = np.array([values, values]).T[:, 0] if rng.random() < 0.5 else np.repeat(array, 2)[::2]
    total = exact_sum(array)
    said.append(str(total))
    if total != Fraction(truth, _ONE):
        yield f"exact_sum of {len(values)} floats is off by {float(total - Fraction(truth, _ONE))!r}: {values[:9]!r}"
    if exact_units(array) != truth:
        yield f"exact_units of {len(values)} floats is {exact_units(array)}: {values[:9]!r}"


def _whole_sums(rng: Random, said: list[str]) -> Iterator[str]:
    from impq_opt.exactness.sums import exact_int_sum

    ends = (2**63 - 1, -(2**63), 2**62, -(2**62), 2**61, 2**32, 2**32 - 1, -(2**32), 0, 1, -1)
    values = [rng.choice(ends) if rng.random() < 0.7 else rng.randrange(-(2**63), 2**63) for _ in range(_count(rng))]
    total = exact_int_sum(np.array(values, dtype=np.int64))
    said.append(str(total))
    if total != sum(values):
        yield f"exact_int_sum is {total}, and it is {sum(values)}: {values[:9]!r}"


def _roundings(rng: Random, said: list[str]) -> Iterator[str]:
    from impq_opt.exactness.sums import ceil_float, float_above, float_of, floor_float

    start = rng.choice(_EXTREMES) * rng.choice([1, -1]) if rng.random() < 0.6 else floats(rng, 1)[0]
    value = Fraction(start) + rng.choice([0, 1, -1]) * Fraction(1, 1 << rng.choice([30, 53, 54, 1074, 1075, 1100]))
    same = Fraction(1)
    value *= rng.choice([same, same, same, Fraction(10**400 + 1, 10**400), Fraction(4), Fraction(1, 3)])
    for name, round_, side in (("floor_float", floor_float, 1), ("ceil_float", ceil_float, -1)):
        rounded = round_(value)
        said.append(repr(rounded))
        yield from _rounded(name, value, rounded, side)
    units = math.floor(value * _ONE)
    above, near = float_above(units), float_of(units)
    said += [repr(above), repr(near)]
    yield from _rounded("float_above", Fraction(units, _ONE), above, -1)
    try:
        wanted = float(Fraction(units, _ONE))
    except OverflowError:
        wanted = math.inf if units > 0 else -math.inf
    if near != wanted:
        yield f"float_of is {near!r}, and it is {wanted!r}"


def _rounded(name: str, value: Fraction, rounded: float, side: int) -> Iterator[str]:
    """Yield what is wrong with a rounding down (``side`` 1) or up (-1): the wrong side, or not the nearest there."""
    if math.isnan(rounded):
        yield f"{name} of {value} is NaN"
    elif math.isinf(rounded):
        beyond = Fraction(1.7976931348623157e308)
        # Past the ends of float64 a rounding may be infinite on its own side only.
        if (rounded > 0) == (side > 0) or abs(value) <= beyond:
            yield f"{name} of {float(value) if abs(value) <= beyond else value!r} is {rounded}"
    elif side * (Fraction(rounded) - value) > 0:
        yield f"{name} is {rounded!r}, on the wrong side of {value}"
    else:
        following = math.nextafter(rounded, side * math.inf)
        if math.isfinite(following) and side * (Fraction(following) - value) <= 0:
            yield f"{name} is {rounded!r}, and {following!r} is nearer to {value}"


def _rows(rng: Random, said: list[str]) -> Iterator[str]:
    from impq_opt.exactness.sums import sum_rows_down

    width = rng.randrange(1, 5)
    rows = [[abs(v) / 8 for v in floats(rng, width)[:width]] for _ in range(rng.randrange(1, 6))]
    summed = sum_rows_down(np.array(rows)).tolist()
    said.append(repr(summed))
    for column, total in enumerate(summed):
        exact = sum((Fraction(row[column]) for row in rows), Fraction(0))
        if not math.isfinite(total) or Fraction(total) > exact:
            yield f"sum_rows_down is {total!r}, above {float(exact)!r}: {[row[column] for row in rows]!r}"
        elif exact - Fraction(total) > len(rows) * (exact / 2**52 + Fraction(1, _ONE)):
            yield f"sum_rows_down is {total!r}, far below {float(exact)!r}: {[row[column] for row in rows]!r}"


def _dual(rng: Random, said: list[str]) -> Iterator[str]:
    """Hold the bound of some multipliers against the least Lagrangian, and against the optimum."""
    from impq_opt import ImpqError
    from impq_opt.proof.bound import dual_bound

    question = draws.question(rng.randrange(1 << 40))
    make_instance = _instance_maker()
    try:
        instance = make_instance(question.problem, **question.asked)
    except ImpqError:
        return
    by_cost = question.budget is None
    name = "bound" if by_cost else "budget"
    names = [name, *(budget.name for budget in (*instance.budgets, *instance.peaks))]
    multipliers = {one: rng.choice([0.0, _price(rng), _price(rng)]) for one in names}
    if instance.size == 0:
        return
    below = dual_bound(instance, multipliers)
    said.append(str(below))
    truth = question.truth
    unit = instance.quantum if by_cost else Fraction(1)
    if truth is not None and below * unit > truth:
        yield (
            f"dual_bound is {below * unit}, above the optimum {truth}: {multipliers!r} for\n"
            f"{question.code()}, {question.goal()}"
        )
    plain = not (instance.peaks or instance.budgets or instance.coupled or question.ties)
    if plain and below != -math.inf:
        exact = _lagrangian(question, instance, multipliers[name])
        if below > exact:
            yield f"dual_bound is {below}, above the Lagrangian {exact}: {multipliers!r} for\n{question.code()}"
        scale = _scale(question, instance, multipliers[name])
        # What would overflow is cut off, which lowers the bound; and a few smallest units are taken off.
        if scale < 10**280 and exact - below > scale / 2**40 + Fraction(1, 2**100 if by_cost else 2**1060):
            yield f"dual_bound is {below}, far below the Lagrangian {exact}: {multipliers!r} for\n{question.code()}"


def _instance_maker() -> Callable[..., Any]:
    from impq_opt.instance.question import make_instance

    return make_instance


def _lagrangian(question: Question, instance: Any, price: float) -> Fraction:
    """Return the least of objective plus price times what is above the limit, exactly, in quanta or damage."""
    return min(_priced(question, instance, price, choice) for choice in question.assignments())


def _priced(question: Question, instance: Any, price: float, choice: tuple[int, ...]) -> Fraction:
    damage = Fraction(question.damage(choice), _ONE)
    cost = question.row.at(choice) * question.row.unit / instance.quantum
    if question.budget is None:
        return cost + Fraction(price) * (damage - Fraction(question.bound))  # type: ignore[arg-type]
    return damage + Fraction(price) * (cost - instance.limit)


def _scale(question: Question, instance: Any, price: float) -> Fraction:
    """Return how large the terms are that are added and cancel."""
    choices = [tuple(c) for c in question.assignments()]
    limit = Fraction(question.bound) if question.budget is None else Fraction(abs(instance.limit))  # type: ignore[arg-type]
    largest = max(abs(_priced(question, instance, price, c)) for c in choices)
    return largest + Fraction(price) * limit


def _price(rng: Random) -> float:
    return rng.choice([10.0 ** rng.uniform(-300, 300), 10.0 ** rng.uniform(-9, 12), rng.choice(_EXTREMES)])


def _units(value: float) -> int:
    top, bottom = value.as_integer_ratio()
    return top * (_ONE // bottom)
