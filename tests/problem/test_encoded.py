"""Problems of encodings: only those that hold a matrix's rows, at exact sizes."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from known import known

from impq_opt import solve, verify
from impq_opt.encodings import encoding
from impq_opt.errors import ProblemError
from impq_opt.problem.encoded import encoded_problem, weight_errors

RNG = np.random.default_rng(0)
MATRICES = {
    "up": RNG.standard_normal((48, 192)),
    "down": RNG.standard_t(3, (32, 96)),
}
SHAPES = {name: (len(matrix), matrix.shape[1]) for name, matrix in MATRICES.items()}


def test_rows_have_the_encodings_whose_blocks_divide_them() -> None:
    kinds = [encoding(name) for name in ("int2-g64", "uint3-g32", "mxfp4")]
    problem = encoded_problem(SHAPES, kinds, lambda name, row: weight_errors(MATRICES[name], row))
    assert problem["up"].formats == ("int2-g64", "uint3-g32", "mxfp4")
    assert problem["down"].formats == ("uint3-g32", "mxfp4")
    assert problem["up"].bits == (2.28125, 3.59375, 4.25)
    assert problem["down"].length == 96
    answer = solve(problem.revise(pins={"up": "int2-g64", "down": "mxfp4"}), bound=10)
    assert answer.exact_cost == 48 * 192 * Fraction(73, 32) + 32 * 96 * Fraction(17, 4)
    error = np.square(encoding("mxfp4").round(MATRICES["down"]) - MATRICES["down"]).sum()
    assert known(problem["down"].damage)[1] == pytest.approx(error / np.square(MATRICES["down"]).sum())


def test_what_a_matrix_has_one_of_is_paid() -> None:
    kinds = [encoding(name) for name in ("nvfp4", "torchao-int8")]
    problem = encoded_problem(SHAPES, kinds, lambda name, row: weight_errors(MATRICES[name], row))
    answer = solve(problem.revise(pins={"up": "nvfp4", "down": "torchao-int8"}), bound=10)
    assert answer.exact_cost == (48 * 192 * 9 // 2 + 32) + (32 * 96 * 8 + 32 * 32)
    assert answer.cost_weights == {"size": 1}
    assert verify(answer.problem, answer).proved


def test_rows_that_none_holds_are_told() -> None:
    with pytest.raises(
        ProblemError, match=re.escape("down: has rows of 96, and no encoding holds them, got ['int4-g64'")
    ):
        encoded_problem(SHAPES, [encoding("int4-g64")], lambda _, row: [1.0] * len(row))


def test_zeros_are_kept() -> None:
    assert weight_errors(np.zeros((2, 32)), [encoding("int4-g32")]) == [0.0]
