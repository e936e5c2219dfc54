"""Encodings by their definitions: examples by hand, what they take, and the rules that all keep."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from impq_opt.encodings import encoding, encoding_names, family_class, family_names
from impq_opt.encodings.minifloat import BFLOAT16, E2M1, E2M3, E3M2, E4M3, E5M2
from impq_opt.errors import OptionError, ProblemError
from impq_opt.testing import ConformanceError, check_encodings


def row(*weights: float, block: int = 32) -> np.ndarray:
    """Return one block, filled with zeros."""
    return np.array([[*weights, *[0.0] * (block - len(weights))]], dtype=np.float32)


def rounded(name: str, *weights: float) -> list[float]:
    one = encoding(name)
    found: list[float] = one.round(row(*weights, block=one.block))[0, : len(weights)].tolist()
    return found


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=pytest.mark.peer("libgguf") if n == "gguf" else ()) for n in family_names()]
)
def test_families_keep_the_rules(family: str) -> None:
    check_encodings(family_class(family)())


def test_two_levels_may_be_further_from_the_weights_than_zeros_are() -> None:
    with pytest.raises(ConformanceError, match="its squared error is"):
        check_encodings(family_class("integers")(), beside=0.01)


@pytest.mark.parametrize(
    ("name", "bits", "kilobyte"),
    [
        ("q2_k", Fraction(21, 8), 2688), ("q3_k", Fraction(55, 16), 3520), ("q4_k", Fraction(9, 2), 4608),
        ("q6_k", Fraction(105, 16), 6720), ("q8_0", Fraction(17, 2), 8704), ("q4_0", Fraction(9, 2), 4608),
        ("int2-g32", Fraction(41, 16), 2624), ("uint3-g128", Fraction(403, 128), 3224),
        ("nvfp4", Fraction(9, 2), 4608 + 32), ("mxfp4", Fraction(17, 4), 4352), ("mxfp8-e4m3", Fraction(33, 4), 8448),
        ("torchao-int4-g32", Fraction(5), 5120), ("torchao-int8", Fraction(8), 8192 + 4 * 32),
    ],
)  # fmt: skip
def test_bits_and_sizes_are_exact(name: str, bits: Fraction, kilobyte: int) -> None:
    assert encoding(name).bits == bits
    assert encoding(name).size(4, 256) == kilobyte


def test_mxfp4_by_hand() -> None:
    # the largest is below 8, so the scale is 2^(2 - 2): steps of 0.5 up to 2, of 1 up to 4, of 2 up to 6
    assert rounded("mxfp4", 5.0, 2.5, 0.25, 0.75, 1.75, -7.9, 3.4) == [4.0, 2.0, 0.0, 1.0, 2.0, -6.0, 3.0]
    # a scale of 2^(-3 - 2)
    assert rounded("mxfp4", 0.125, 0.1, -0.01) == [0.125, 0.09375, -0.015625]
    assert rounded("mxfp8-e5m2", 1.0, 1.1) == [1.0, 1.0]


def test_nvfp4_by_hand() -> None:
    # the largest weight is 6 * 448, so the matrix has a scale of 1; the second block's is 7/6, nearest in E4M3: 1.125
    matrix = np.zeros((1, 32), dtype=np.float32)
    matrix[0, [0, 1, 16, 17]] = 2688.0, 600.0, 7.0, -2.0
    found = encoding("nvfp4").round(matrix)[0]
    assert found[[0, 1, 16, 17]].tolist() == [2688.0, 448.0 * 1.5, 6 * 1.125, -2 * 1.125]
    assert not found[2:16].any()


def test_integers_by_hand() -> None:
    # without a zero point: steps of 2 * 7.5 / 15, codes from -8 to 7, halves to even
    assert rounded("int4-g32", 7.5, -7.5, 2.5, 3.5, 0.4) == [7.0, -8.0, 2.0, 4.0, 0.0]
    # with one: from -1 to 2 in steps of 1
    assert rounded("uint2-g32", 2.0, -1.0, 0.4, 0.6, 1.5) == [2.0, -1.0, 0.0, 1.0, 2.0]
    # all of one sign: zero is the other end
    assert rounded("uint2-g32", 3.0, 2.0, 0.6) == [3.0, 2.0, 1.0]


def test_torchao_by_hand() -> None:
    # 16 levels from 1 to 16, of which 0 is none; the middle is the 9th
    one = encoding("torchao-int4-g32")
    weights = np.linspace(1, 16, 32, dtype=np.float32)[None]
    levels = one.round(weights)
    assert set(np.unique(levels)) == set(range(1, 17))
    assert np.abs(levels - weights).max() <= 0.5
    assert encoding("torchao-int8").round(np.array([[127.5, -127.5, 3.4]])).tolist() == [[127.0, -128.0, 3.0]]


def test_small_floating_point_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(4096) * 2.0 ** rng.integers(-20, 9, 4096)).astype(np.float32)
    values = np.concatenate([values, np.ldexp(rng.integers(-40, 40, 1000), -9).astype(np.float32)])
    for own, theirs in ((E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2), (BFLOAT16, torch.bfloat16)):
        kept = values[np.abs(values) <= own.largest]
        assert np.array_equal(own.nearest(kept), torch.from_numpy(kept).to(theirs).float().numpy())


def test_all_values_of_four_and_six_bits() -> None:
    everything = np.linspace(-30, 30, 60001, dtype=np.float32)
    assert np.unique(np.abs(E2M1.nearest(everything))).tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert len(np.unique(np.abs(E2M3.nearest(everything)))) == len(np.unique(np.abs(E3M2.nearest(everything)))) == 32
    assert E3M2.nearest(np.array([0.06, 27.9, 100], dtype=np.float32)).tolist() == [0.0625, 28, 28]


def test_rows_that_a_block_does_not_divide_are_refused() -> None:
    assert not encoding("q4_k").holds(576)
    assert encoding("q4_0").holds(576)
    with pytest.raises(ProblemError, match=r"^int4-g128: holds rows of a multiple of 128 weights, got 576$"):
        encoding("int4-g128").round(np.ones((2, 576)))


def test_names_are_found_in_any_capitals_and_others_have_near_ones() -> None:
    assert encoding("Q4_K").name == "q4_k"
    assert encoding_names("torchao")[-1] == "torchao-int8"
    with pytest.raises(OptionError, match=re.escape("unknown encoding, got 'q4_kk' (did you mean 'q4_k'")):
        encoding("q4_kk")


def test_types_that_need_an_importance_matrix_say_so() -> None:
    with pytest.raises(ProblemError, match="iq2_xxs: is written by an importance matrix only"):
        encoding("iq2_xxs").round(np.ones((1, 256)))
