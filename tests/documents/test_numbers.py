"""Numbers in texts: one grammar and one limit wherever they stand, read exactly, refused in one sentence."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known, table_cost_of

from impq_opt.documents.numbers import DIGITS, EXPONENT, read_exact, read_float, read_whole
from impq_opt.errors import FileError, InputError, ProblemError

READ = {
    "12": Fraction(12),
    "-0.5": Fraction(-1, 2),
    "+.5": Fraction(1, 2),
    "5.": Fraction(5),
    "1e-3": Fraction(1, 1000),
    "1E+3": Fraction(1000),
    "1/3": Fraction(1, 3),
    "-2/6": Fraction(-1, 3),
    " 1 ": Fraction(1),
    "\t1\n": Fraction(1),
    "007": Fraction(7),
    "1e0003": Fraction(1000),
    "-0": Fraction(0),
    "-0.0": Fraction(0),
    "0e999": Fraction(0),
    "1e999": Fraction(10) ** 999,
    "1e-999": Fraction(1, 10**999),
    "9" * DIGITS: Fraction(10**DIGITS - 1),
    f"1/{'9' * DIGITS}": Fraction(1, 10**DIGITS - 1),
}

REFUSED = [
    "",
    " ",
    ".",
    "e3",
    "1e",
    "1e+",
    "+-1",
    "--1",
    "1 2",
    "1 / 3",
    "1/ 3",
    "1/-3",
    "1.5/2",
    "1/2e3",
    "1/0",
    "0/0",
    "inf",
    "-Infinity",
    "nan",
    "NaN",
    "1_000",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "\N{FULLWIDTH DIGIT ONE}",
    "\N{NO-BREAK SPACE}1",
    "1\N{MINUS SIGN}",
    "0x10",
    "0b1",
    "1,5",
    "1j",
    "true",
    "1\0",
    f"1e{EXPONENT + 1}",
    f"1e-{EXPONENT + 1}",
    "1e9999999",
    "1e" + "9" * 5000,
    "0e" + "9" * 5000,
    "1" + "0" * DIGITS,
    "1/1" + "0" * DIGITS,
    "9" * (DIGITS - 10) + "e999",
    "9" * 10_000_000,
]


@pytest.mark.parametrize("text", READ, ids=lambda text: repr(text[:20]))
def test_what_spells_a_number_is_read_exactly(text: Any) -> None:
    assert read_exact(text, "x") == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("read", [read_exact, read_float, read_whole])
def test_what_does_not_is_refused_at_once_in_one_sentence(text: Any, read: Any) -> None:
    started = time.monotonic()
    with pytest.raises(FileError) as told:
        read(text, "table.csv: line 3", error=FileError)
    assert time.monotonic() - started < 5
    assert str(told.value).startswith("table.csv: line 3: ") and len(str(told.value)) < 300


@pytest.mark.parametrize("value", [None, True, np.bool_(True), [1], 1j, b"1", float("nan"), np.inf, np.float64("-inf")])
def test_values_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(ProblemError):
        read_exact(value, "x")


@pytest.mark.parametrize(
    "value", [10**DIGITS, Fraction(1, 10**DIGITS), -(10 ** (20 * DIGITS))], ids=["long", "small", "longer"]
)
def test_whole_numbers_beyond_the_limit_are_told_without_being_written_out(value: Any) -> None:
    with pytest.raises(ProblemError, match="digits"):
        read_exact(value, "x")
    with pytest.raises(ProblemError):
        raise ProblemError("is too large", where="x", value=value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.fractions())
@settings(max_examples=200, deadline=None)
def test_whatever_is_written_is_read_again(value: Any) -> None:
    exact = Fraction(value)
    assert read_exact(str(exact), "x") == exact
    assert read_exact(value, "x") == exact
    if isinstance(value, float):
        assert read_float(repr(value), "x") == value
        # The sign of a zero says nothing and is lost.
        assert str(read_float(repr(value), "x")) == str(value + 0.0)


@given(st.text("0123456789.eE+-/ _x", max_size=12))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_number_as_fraction_reads_it_or_refused(text: Any) -> None:
    try:
        found = read_exact(text, "x")
    except InputError:
        return
    assert found == Fraction(text)


def test_whole_numbers_keep_every_digit() -> None:
    assert read_whole("9007199254740993", "x") == 2**53 + 1
    assert read_whole("1e3", "x") == read_whole("1000.0", "x") == read_whole(1000.0, "x") == 1000
    for text in ("0.5", "1e-1", "1/3"):
        with pytest.raises(ProblemError, match="whole"):
            read_whole(text, "x")


def test_floats_are_the_nearest_and_within_their_range() -> None:
    generator = random.Random(5)
    for _ in range(200):
        digits = f"{generator.randrange(10**20)}e{generator.randrange(-320, 280)}"
        assert read_float(digits, "x") == float(digits)
    assert read_float("1e-999", "x") == 0
    for text in ("1e309", "-1e309", "1e999"):
        with pytest.raises(ProblemError, match="float64"):
            read_float(text, "x")


def test_tables_keep_every_digit_of_whole_costs_and_sizes(tmp_path: Path) -> None:
    from impq_opt.exchange.tabular import Csv

    path = tmp_path / "t.csv"
    path.write_text(
        "\ufeffgroup,size,bits,cost,damage\na,9007199254740993,1,9007199254740993,0.5\n"
        "a,9007199254740993,2,inf,0.25\na,9007199254740993,3,9007199254740995,inf\n",
        encoding="utf-8",
    )
    problem = Csv().problem(Csv().load([path]))
    assert problem.sizes.tolist() == [2**53 + 1]
    assert table_cost_of(problem).values.tolist() == [[2**53 + 1, 0, 2**53 + 3]]
    assert known(problem.allowed).tolist() == [[True, False, False]]
    for cell in ("1e9999999", "1_0", "9" * 30, "-inf", "nan", "0.5", "\u0663"):
        path.write_text(f"group,size,bits,cost,damage\na,{cell},2,1,1\n", encoding="utf-8")
        with pytest.raises(FileError, match=r"row 2 \(a\): size: "):
            Csv().problem(Csv().load([path]))
    for column in (2, 3, 4):
        for cell in ("1e9999999", "1_0", "-inf", "nan", "\u0663", ""):
            row = ["a", "1", "2", "1", "1"]
            row[column] = cell
            path.write_text("group,size,bits,cost,damage\n" + ",".join(row) + "\n", encoding="utf-8")
            with pytest.raises(FileError, match=r"row 2 \(a\): (bits|cost|damage): "):
                Csv().problem(Csv().load([path]))


def test_quantities_are_read_by_the_same_reader() -> None:
    from impq_opt.costs import parse_quantity
    from impq_opt.errors import OptionError

    assert parse_quantity("1/3 KiB", "bit") == Fraction(8192, 3)
    assert parse_quantity(0.1, "bit") == Fraction(1, 10)
    assert parse_quantity(np.float64(2.5), "bit") == Fraction(5, 2)
    assert parse_quantity("1e99", "bit") == 10**99
    for text in (
        "1e101",
        "1e9999999",
        "-1",
        "-0",
        "1_0",
        "\u0663",
        "0x10 B",
        "nan",
        "inf",
        10**5000,
        -3,
        True,
        "9" * 5000,
    ):
        with pytest.raises(OptionError) as told:
            parse_quantity(text, "bit", "budget")
        assert len(str(told.value)) < 300
