"""Small coupled problems of every shape of graph, and a slow evaluation that shares no code with the package's own."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
from known import known, law_of

from impq_opt import Group, Problem

SHAPES = ("chain", "residual", "branch", "depthwise", "shared", "cycle", "input")


def graph(shape: str, seed: int = 0, bits: Any = (2, 3, 5), kernels: int = 1) -> Problem:
    """Return a problem of ``shape`` with seeded random sizes, sensitivities and operations."""
    random = np.random.default_rng([seed, SHAPES.index(shape)])
    groups: list[Group] = []

    def activation(name: str, steps: tuple[int, int]) -> None:
        size = int(random.integers(10, 90))
        groups.append(Group(name, size, float(10 ** random.uniform(-3, 0)), bits=bits, kind="activation", steps=steps))

    def weight(name: str, reads: str, also: Any = ()) -> None:
        for k in range(kernels):
            length, positions = int(random.integers(2, 9)), int(random.integers(1, 9))
            groups.append(
                Group(
                    f"{name}.{k}" if kernels > 1 else name,
                    length * int(random.integers(1, 4)),
                    float(10 ** random.uniform(-3, 0)),
                    bits=bits,
                    layer=name.split(".", maxsplit=1)[0],
                    reads=reads,
                    length=length,
                    macs=length * positions,
                    also_reads=[(other, length * int(random.integers(1, 9))) for other in also],
                )
            )

    ties: list[tuple[str, ...]] = []
    if shape == "chain":
        activation("a0", (0, 1))
        activation("a1", (1, 2))
        weight("w0", "a0")
        weight("w1", "a1")
    elif shape == "residual":  # a2 = w0(a0) + a0: an add of tensors that must agree
        for number, steps in enumerate([(0, 2), (1, 2), (2, 3)]):
            activation(f"a{number}", steps)
        weight("w0", "a0")
        weight("w1", "a1")
        weight("w2", "a2")
        ties.append(("a0", "a2"))
    elif shape == "branch":
        activation("a0", (0, 2))
        activation("a1", (1, 3))
        weight("w0", "a0")
        weight("w1", "a0")
        weight("w2", "a1")
    elif shape == "depthwise":
        activation("a0", (0, 1))
        activation("a1", (1, 2))
        for k in range(3):
            weight(f"w0.{k}", "a0")
        weight("w1", "a1")
    elif shape == "shared":  # one weight used on two tensors, each of which another weight reads
        activation("a0", (0, 2))
        activation("a1", (1, 3))
        weight("w0", "a0", ["a1"])
        weight("w1", "a0")
        weight("w2", "a1")
    elif shape == "cycle":  # three tensors, three shared weights
        for number in range(3):
            activation(f"a{number}", (number, number + 1))
        for number in range(3):
            weight(f"w{number}", f"a{number}", [f"a{(number + 1) % 3}"])
    else:  # the first layer reads the network's input, which has no group
        activation("a1", (1, 2))
        weight("w0", "")
        weight("w1", "a1")
    return Problem.declare(groups, minimize="bit-operations", ties=ties)


def slow_cost(problem: Problem, bits: Any, cost: str) -> Fraction:
    """Return a cost by its formula, one dot product after the other."""
    total = Fraction(0)
    if cost == "storage":
        return sum(
            (Fraction(b) * int(n) for b, n, w in zip(bits, problem.sizes, problem.weights(), strict=True) if w), total
        )
    if cost == "peak-activation-memory":
        steps, alive = problem.steps, ~problem.weights()
        return max(
            sum(
                (
                    Fraction(bits[g]) * int(problem.sizes[g])
                    for g in np.flatnonzero(alive)
                    if known(steps)[g, 0] <= s <= known(steps)[g, 1]
                ),
                total,
            )
            for s in range(int(known(steps).max()) + 1)
        )
    edges = [
        (g, int(known(problem.reads)[g]), int(known(problem.macs)[g])) for g in np.flatnonzero(known(problem.macs))
    ]
    edges += [tuple(row) for row in (problem.also_reads.tolist() if problem.also_reads is not None else [])]
    for weight, read, macs in edges:
        b_w, b_a = Fraction(bits[weight]), Fraction(bits[read]) if read >= 0 else Fraction(8)
        if cost == "bit-operations":
            total += macs * b_w * b_a
        else:
            length = int(known(problem.lengths)[weight])
            carries = next(k for k in itertools.count() if 2**k >= length)
            each = length * b_a * b_w + (length - 1) * (b_a + b_w + carries - 1)
            total += (macs // length) * each
            if cost == "slides" and macs > problem.sizes[weight]:
                total += 576 * (macs // length)
    return total


def brute_force(problem: Problem, bound: float, budgets: Any = None, minimize: str = "bit-operations") -> Any:
    """Return the least cost under the bound and the budgets by looking at everything; None if nothing is feasible."""
    free = range(len(problem))
    best = None
    damage = [
        [Fraction(float(e) * 4.0**-b) for b in problem.candidates.of(g)]
        for g, e in enumerate(law_of(problem).sensitivity.tolist())
    ]
    for choice in itertools.product(*(range(len(problem.candidates.of(g))) for g in free)):
        bits = [problem.candidates.of(g)[k] for g, k in enumerate(choice)]
        if any(len({bits[g] for g in tie}) > 1 for tie in problem.ties):
            continue
        if any(choice[g] != k for g, k in problem.pins.items()):
            continue
        if sum((damage[g][k] for g, k in enumerate(choice)), Fraction(0)) > Fraction(bound):
            continue
        if any(slow_cost(problem, bits, name) > limit for name, limit in (budgets or {}).items()):
            continue
        value = slow_cost(problem, bits, minimize)
        if best is None or value < best:
            best = value
    return best
