"""Synthetic families: seeded generators of problems of any size, from friendly ones to those that break solvers.

Every family has a bound of its own, so ``solve(generate(...))`` asks a sensible question. Sizes and sensitivities
imitate the granularities of networks (layers, channels, kernels, blocks) or a known hard case of the multiple-choice
knapsack problem (Kellerer, Pferschy & Pisinger 2004, section 11.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impq_opt.errors import OptionError, nearest
from impq_opt.exactness.sums import exact_sum
from impq_opt.groups.damage import PowerLaw
from impq_opt.problem.problem import Problem
from impq_opt.types import FloatArray, IntArray

__all__ = ["FAMILIES", "Family", "explicit", "generate"]

BITS = range(1, 9)


@dataclass(frozen=True)
class Family:
    """A generator of problems.

    Parameters
    ----------
    summary : str
        What the groups imitate, in one line.
    build : callable
        From a number of groups and a random generator to a problem with its bound.
    hard : bool
        Whether it is made to break methods that rely on the convex relaxation.
    """

    summary: str
    build: Callable[[int, np.random.Generator], Problem]
    hard: bool = False


def generate(name: str, groups: int, seed: int = 0) -> Problem:
    """Return the problem of family ``name`` with ``groups`` groups; the same seed gives the same problem.

    Raises
    ------
    OptionError
        Where the family is unknown or ``groups`` is not positive.

    Examples
    --------
    >>> generate("channel", 1000)
    Problem(1000 groups, minimize=storage, bound=0.01)
    """
    if name not in FAMILIES:
        raise OptionError("unknown family", where="family", value=name, hint=nearest(name, FAMILIES))
    if groups < 1:
        raise OptionError("must be positive", where="groups", value=groups)
    return FAMILIES[name].build(groups, np.random.default_rng([seed, groups]))


def explicit(problem: Problem) -> Problem:
    """Return the same question with explicit tables instead of sizes and sensitivities."""
    if not isinstance(problem.damage, PowerLaw):
        return problem
    bits = problem.candidates.sets[0]
    levels = np.array(bits, dtype=np.int64)
    damage = problem.damage.at(slice(None), bits)
    return Problem.from_tables(problem.sizes[:, None] * levels, damage, bits=bits, bound=problem.bound)


# -- granularities of networks ---------------------------------------------------------------------------------------


def _structured(sizes: IntArray, sensitivity: FloatArray, uniform_bits: float = 4.0) -> Problem:
    """Return a problem whose bound of 0.01 is what ``uniform_bits`` bits everywhere would just meet."""
    total = float(sensitivity.sum()) * 4.0**-uniform_bits
    return Problem.from_sensitivities(sizes, sensitivity * (0.01 / total), bits=BITS, bound=0.01)


def _lognormal(rng: np.random.Generator, count: int, decades: float) -> FloatArray:
    return 10.0 ** rng.normal(0.0, decades, count)


def _layers(groups: int, rng: np.random.Generator, kernels: tuple[int, ...]) -> tuple[IntArray, FloatArray]:
    """Return sizes and sensitivities of groups in layers of 8 to 1024: equal sizes, alike sensitivities inside one."""
    widths: list[int] = []
    while sum(widths) < groups:
        widths.append(int(2 ** rng.integers(3, 11)))
    sizes = np.repeat(rng.choice(kernels, len(widths)), widths)[:groups]
    scale = np.repeat(_lognormal(rng, len(widths), 0.8), widths)[:groups]
    return sizes.astype(np.int64), scale * _lognormal(rng, groups, 0.5)


def _layer(groups: int, rng: np.random.Generator) -> Problem:
    inputs = 2 ** rng.integers(4, 10, groups)
    sizes = inputs * 2 ** rng.integers(4, 10, groups) * rng.choice([1, 9], groups)
    return _structured(sizes.astype(np.int64), _lognormal(rng, groups, 0.8))


def _channel(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(*_layers(groups, rng, (*tuple(9 * 2**i for i in range(4, 10)), 64, 128, 256, 512)))


def _kernel(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(*_layers(groups, rng, (1, 9, 9, 9, 25, 49)))


def _block(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(np.full(groups, 128, dtype=np.int64), _lognormal(rng, groups, 0.7))


def _free(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(rng.integers(1, 10**6, groups), _lognormal(rng, groups, 0.8))


def _ties(groups: int, rng: np.random.Generator) -> Problem:
    kind = rng.integers(0, 20, groups)
    return _structured(rng.integers(10, 5000, 20)[kind], _lognormal(rng, 20, 0.8)[kind])


def _twelve_decades(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(rng.integers(1, 10**4, groups), 10.0 ** rng.uniform(-12, 0, groups))


# -- tables of any shape ---------------------------------------------------------------------------------------------


def _table(cost: IntArray, damage: FloatArray, share: float) -> Problem:
    """Return a problem whose bound lies at ``share`` of the way from the least damage to that of the cheapest."""
    cheapest = damage[np.arange(len(cost)), cost.argmin(axis=1)].sum()
    least = damage.min(axis=1).sum()
    return Problem.from_tables(cost, damage, bound=float(least + share * (cheapest - least)))


def _non_convex(groups: int, rng: np.random.Generator) -> Problem:
    bits = np.arange(1, 9)
    sizes = rng.integers(10, 5000, groups)[:, None]
    cost = sizes * bits + rng.integers(0, 3 * sizes, (groups, 8))  # formats with overheads: neither sorted nor convex
    damage = _lognormal(rng, groups, 0.8)[:, None] * 4.0**-bits * 10.0 ** rng.normal(0, 0.5, (groups, 8))
    return _table(cost, damage, 0.02)


def _random(groups: int, rng: np.random.Generator) -> Problem:
    return _table(rng.integers(1, 10**4, (groups, 8)), rng.random((groups, 8)), 0.3)


# -- hard cases ------------------------------------------------------------------------------------------------------


def _pairs(weight: IntArray, extra: IntArray | int) -> tuple[IntArray, FloatArray]:
    """Return two candidates a group: pay nothing and do ``weight + extra`` of damage, or pay ``weight``."""
    none = np.zeros_like(weight)
    return np.stack([none, weight], axis=1), np.stack([weight + extra, none], axis=1).astype(np.float64)


def _correlated(largest: int) -> Callable[[int, np.random.Generator], Problem]:
    def build(groups: int, rng: np.random.Generator) -> Problem:
        weight = rng.integers(1, largest + 1, groups)
        cost, damage = _pairs(weight, largest // 10)
        return Problem.from_tables(cost, damage, bound=float(np.floor(damage.sum() / 2)))

    return build


def _equal_sizes(groups: int, rng: np.random.Generator) -> Problem:
    return _structured(np.full(groups, 4096, dtype=np.int64), _lognormal(rng, groups, 0.8))


def _equal_ratios(groups: int, rng: np.random.Generator) -> Problem:
    sizes = rng.integers(100, 10**4, groups)
    return _structured(sizes, sizes.astype(np.float64))


def _subset_sum(groups: int, rng: np.random.Generator) -> Problem:
    weight = rng.integers(1, 10**4, groups)
    cost = np.stack([np.zeros_like(weight), weight], axis=1)
    damage = np.stack([weight / 7.0, np.zeros(groups)], axis=1)  # the same numbers, as floats that are not whole
    return Problem.from_tables(cost, damage, bound=float(damage.sum()) / 2)


def _dominating(groups: int, rng: np.random.Generator) -> Problem:
    sizes, sensitivity = rng.integers(10, 5000, groups), _lognormal(rng, groups, 0.8)
    sizes[0], sensitivity[0] = 10**9, sensitivity.sum() * 1e4
    return _structured(sizes, sensitivity)


def _attained(groups: int, rng: np.random.Generator) -> Problem:
    """Return a problem whose bound is the exact damage of some selection, drawn at random."""
    sizes, sensitivity = rng.integers(10, 5000, groups), _lognormal(rng, groups, 0.8)
    chosen = exact_sum(sensitivity * 4.0 ** -rng.integers(2, 7, groups).astype(np.float64))
    return Problem.from_sensitivities(sizes, sensitivity, bits=BITS, bound=Fraction(chosen))


def _denormal(groups: int, rng: np.random.Generator) -> Problem:
    sensitivity = rng.integers(1, 10**6, groups) * 5e-324
    return Problem.from_sensitivities(
        rng.integers(10, 5000, groups), sensitivity, bits=BITS, bound=float(sensitivity.sum()) / 200
    )


FAMILIES: dict[str, Family] = {
    "layer": Family("one group a layer, as in a residual network", _layer),
    "channel": Family("output channels of layers of 3x3 and 1x1 kernels", _channel),
    "kernel": Family("single kernels of 1 to 49 weights", _kernel),
    "block": Family("blocks of 128 weights of a language model", _block),
    "free": Family("any size up to a million", _free),
    "ties": Family("twenty kinds of groups, repeated", _ties),
    "non-convex": Family("tables that are neither convex nor monotone", _non_convex),
    "random": Family("tables of independent random numbers", _random),
    "twelve-decades": Family("sensitivities over twelve decades", _twelve_decades),
    "equal-sizes": Family("all sizes equal", _equal_sizes, hard=True),
    "equal-ratios": Family("sensitivity proportional to size: every group asks for the same bits", _equal_ratios, True),
    "correlated-1e3": Family("strongly correlated pairs, range 1e3", _correlated(10**3), hard=True),
    "correlated-1e6": Family("strongly correlated pairs, range 1e6", _correlated(10**6), hard=True),
    "subset-sum": Family("damage proportional to cost, rounded to float64", _subset_sum, hard=True),
    "dominating": Family("one group outweighs all others", _dominating, hard=True),
    "attained": Family("the bound is exactly the damage of a selection", _attained, hard=True),
    "denormal": Family("damages at the bottom of float64", _denormal, hard=True),
}
