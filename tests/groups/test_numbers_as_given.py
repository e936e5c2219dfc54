"""Numbers as callers have them give one problem: fractions, decimals, scalars and tensors of others, ragged rows."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import table_cost_of, table_of

from impq_opt import Problem, allocate, solve
from impq_opt.errors import ImpqError, InputError, OptionError, ProblemError

COST, DAMAGE = [[1, 2, 5], [1, 2, 6]], [[0.75, 0.25, 0.125], [0.5, 0.25, 0.0]]
PLAIN = Problem.from_tables(COST, DAMAGE)


def torch_of(dtype: str, **options: Any) -> Any:
    def build(table: Any) -> Any:
        torch = pytest.importorskip("torch")
        return torch.tensor(table, dtype=getattr(torch, dtype), **options)

    return build


def frame(table: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(table)


WAYS: dict[str, Any] = {
    "tuples": lambda table: tuple(map(tuple, table)),
    "float32": lambda table: np.array(table, dtype=np.float32),
    "float16": lambda table: np.array(table, dtype=np.float16),
    "objects": lambda table: np.array(table, dtype=object),
    "NumPy scalars": lambda table: [[np.float64(v) for v in row] for row in table],
    "arrays in a list": lambda table: [np.array(row) for row in table],
    "fractions": lambda table: [[Fraction(v) for v in row] for row in table],
    "decimals": lambda table: [[Decimal(str(v)) for v in row] for row in table],
    "mixed": lambda table: [[Fraction(row[0]), Decimal(str(row[1])), row[2]] for row in table],
    "pandas": frame,
    "pandas, objects": lambda table: frame(table).astype(object),
    "torch": torch_of("float64"),
    "torch, bfloat16": torch_of("bfloat16"),
    "torch, half": torch_of("float16"),
    "torch with a gradient": torch_of("float32", requires_grad=True),
    "torch, bfloat16 with a gradient": torch_of("bfloat16", requires_grad=True),
    "rows of torch": lambda table: list(torch_of("float32", requires_grad=True)(table)),
    "scalars of torch": lambda table: [list(row) for row in torch_of("bfloat16", requires_grad=True)(table)],
}


@pytest.mark.parametrize("way", WAYS)
def test_tables_are_read_whatever_they_are(way: str) -> None:
    problem = Problem.from_tables(WAYS[way](COST), WAYS[way](DAMAGE))
    assert np.array_equal(table_of(problem).values, DAMAGE)
    cost = table_cost_of(problem)
    assert np.array_equal(cost.values * float(cost.quantum), COST)
    assert solve(problem, bound=0.5).objective == solve(PLAIN, bound=0.5).objective


@pytest.mark.parametrize("way", WAYS)
def test_vectors_are_read_whatever_they_are(way: str) -> None:
    def vector(values: Any) -> Any:
        made = WAYS[way]([values])
        return made.iloc[0] if hasattr(made, "iloc") else made[0]

    sizes, sensitivities = [3, 5, 8], [0.5, 0.25, 4.0]
    given = Problem.from_sensitivities(vector(sizes), vector(sensitivities), bits=vector([2, 4, 8]))
    assert given.digest == Problem.from_sensitivities(sizes, sensitivities, bits=[2, 4, 8]).digest


@pytest.mark.parametrize(
    "number", [Fraction(1, 4), Decimal("0.25"), np.float32(0.25), np.float64(0.25), np.array(0.25)]
)
def test_bounds_and_budgets_are_numbers_of_any_kind(number: Any) -> None:
    expected = solve(PLAIN, bound=0.25)
    assert solve(PLAIN, bound=number) == expected
    assert solve(PLAIN.revise(bound=number)) == solve(PLAIN.revise(bound=0.25))
    assert solve(PLAIN, budget=number * 16) == solve(PLAIN, budget=4)
    assert PLAIN.revise(budgets={"cost": number * 16}) == PLAIN.revise(budgets={"cost": 4})


def test_scalars_of_torch_and_pandas_are_numbers() -> None:
    torch, pandas = pytest.importorskip("torch"), pytest.importorskip("pandas")
    bound = torch.tensor(0.25, dtype=torch.bfloat16, requires_grad=True)
    assert solve(PLAIN, bound=bound) == solve(PLAIN, bound=0.25)
    assert solve(PLAIN, budget=torch.tensor(4)) == solve(PLAIN, budget=pandas.Series([4])[0]) == solve(PLAIN, budget=4)


def test_decimals_are_exact_and_floats_binary() -> None:
    assert solve(PLAIN, bound=Decimal("0.4")).bound == Fraction(2, 5)
    assert solve(PLAIN, bound=0.4).bound == Fraction(0.4) != Fraction(2, 5)
    third = allocate([[Fraction(1, 3), 1], [Fraction(1, 7), 1]], [[0.3, 0.1], [0.3, 0.1]], bound=1)
    assert third.exact_cost == Fraction(1, 3) + Fraction(1, 7)
    tenth = allocate([[0.1, Fraction(1, 3)]], [[0.2, 0.1]], bound=0.2)
    assert tenth.exact_cost == Fraction(1, 10)  # as costs are read: the decimal that it spells


@given(
    st.lists(st.lists(st.fractions(0, 100, max_denominator=50), min_size=1, max_size=3), min_size=1, max_size=4),
    st.fractions(Fraction(1, 8), 200, max_denominator=50),
)
@settings(max_examples=30, deadline=None)
def test_ragged_fractions_are_added_exactly(cost: list[list[Fraction]], budget: Fraction) -> None:
    damage = [[1.0 / (1 + k) for k in range(len(row))] for row in cost]
    found = allocate(cost, damage, budget=budget)
    least = sum(map(min, cost))
    if found.choice is None:
        assert least > budget
        return
    taken = [row[k] for row, k in zip(cost, found.choice.tolist(), strict=True)]
    assert found.exact_cost == sum(taken) <= budget
    assert found.problem.candidates.counts(len(cost)).tolist() == [len(row) for row in cost]


def test_ragged_rows_take_their_own_bits() -> None:
    cost, damage, bits = [[1, 2], [5], [1, 2, 3]], [[0.5, 0.1], [0.2], [0.9, 0.5, 0.1]], [(2, 4), (8,), (2, 4, 8)]
    problem = Problem.from_tables(cost, damage, bits=bits)
    assert [group.bits for group in problem] == bits
    assert (
        solve(problem, bound=0.5).bits.tolist() == solve(Problem.from_tables(cost, damage), bound=0.5).bits.tolist()
        or solve(problem, bound=0.5).cost == solve(Problem.from_tables(cost, damage), bound=0.5).cost
    )
    rows = [np.array(row) for row in cost], [np.array(row) for row in damage]
    assert Problem.from_tables(*rows, bits=bits) == problem


WRONG: dict[str, tuple[Any, str]] = {
    "other lengths": (
        lambda: allocate([[1, 2], [3]], [[1.0], [1.0, 2.0]], 1),
        r"damage\[0\]: must have rows as long as",
    ),
    "fewer rows": (lambda: allocate([[1, 2], [3]], [[1.0, 2.0]], 1), r"damage\[1\]: must have rows as long as"),
    "one table": (lambda: allocate([[1, 2], [3]], np.ones((2, 2)), 1), "cost: has rows of several lengths"),
    "an empty row": (lambda: allocate([[1, 2], []], [[1.0, 2.0], []], 1), r"cost\[1\]: a group needs at least one"),
    "bits for all": (
        lambda: allocate([[1, 2], [3]], [[1.0, 2.0], [1.0]], 1, bits=[2, 4]),
        "bits: must be one list per group, as rows differ in length",
    ),
    "bits of another length": (
        lambda: allocate([[1, 2], [3]], [[1.0, 2.0], [1.0]], 1, bits=[[2, 4], [2, 4]]),
        r"bits\[1\]: must have a precision for each number",
    ),
    "text": (lambda: allocate([[Fraction(1), "x"]], [[1.0, 2.0]], 1), "costs.cost: must hold real numbers"),
    "a complex one": (lambda: allocate([[Fraction(1), 1j]], [[1.0, 2.0]], 1), "costs.cost: must hold real numbers"),
    "no number": (lambda: allocate([[1, 2]], [[Decimal("NaN"), 2.0]], 1), r"groups\[0\].damage\[0\].*got nan"),
    "a huge one": (lambda: allocate([[1, 2]], [[Fraction(10**400), 2]], 1), "damage: is beyond the range of float64"),
    "a huge cost": (lambda: allocate([[Fraction(10**400), 2]], [[1, 2]], 1), "costs.cost: is beyond the range"),
    "half a size": (
        lambda: Problem.from_sensitivities(np.array([Fraction(1, 2)]), [1.0]),
        "sizes: must hold whole numbers",
    ),
    "a bound that is none": (lambda: allocate([[1, 2]], [[1, 2]], Decimal("Infinity")), "bound: must be finite"),
    "a bound of a million digits": (lambda: allocate([[1]], [[1]], Decimal("1e1000000")), "at most 4000 digits"),
    "a budget that is none": (lambda: allocate([[1]], [[1]], budget=Decimal("NaN")), "budget: must be a non-negative"),
    "both": (lambda: allocate([[1]], [[1]], 1, budget=1), r"give a bound \(least cost\) or a budget"),
    "neither": (lambda: allocate([[1]], [[1]]), "needs a bound or a budget"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_number_or_no_table_is_told(wrong: str) -> None:
    build, sentence = WRONG[wrong]
    with pytest.raises(InputError, match=sentence) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_tensors_without_numbers_are_told() -> None:
    torch = pytest.importorskip("torch")
    for table in (
        torch.ones(2, 2, device="meta"),
        torch.ones(2, 2, dtype=torch.complex64),
        torch.ones(2, 2).to_sparse(),
    ):
        with pytest.raises(ImpqError, match=r"must hold real numbers, got 'Tensor'"):
            allocate(table, [[1.0, 2.0], [1.0, 2.0]], 1)


def test_infinite_costs_among_fractions_are_not_allowed() -> None:
    found = allocate([[Fraction(1), float("inf")], [Fraction(2), Fraction(3)]], [[0.5, 0.1], [0.5, 0.1]], bound=0.7)
    assert found.bits.tolist() == [0, 1]
    with pytest.raises((ProblemError, OptionError)):
        allocate([[Fraction(1), float("nan")]], [[0.5, 0.1]], bound=0.6)
