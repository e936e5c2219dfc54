"""A problem file whose candidates are encodings: exact fractional bits, lengths of rows, and a file's head."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from impq_opt import Group, Problem, files, solve, verify
from impq_opt.costs import TableCost
from impq_opt.encodings import encoding

GOLDEN = Path(__file__).parents[1] / "golden" / "problem-1-encodings.toml"


MATRICES = {"up": (64, 512, ("q2_k", "q3_k", "q4_k")), "down": (256, 576, ("q4_0", "q8_0"))}


def declared() -> Problem:
    """Return two matrices; rows of one are no blocks of 256. Damages are powers of two."""
    groups, sizes = [], []
    for name, (rows, length, kinds) in MATRICES.items():
        encodings = [encoding(kind) for kind in kinds]
        sizes.append([one.size(rows, length) for one in encodings])
        groups.append(
            Group(
                name, size=rows * length, length=length, bits=[float(one.bits) for one in encodings], formats=kinds,
                damage=[2.0 ** (-2 * place - 1) for place in range(len(kinds))], layer=f"blk.0.{name}",
            )
        )  # fmt: skip
    sizes[1].append(sizes[1][-1])  # a column that the group does not have
    file = replace(TableCost.from_array(sizes, name="file", unit="bit", source="to the byte"), fixed=8 * 800)
    return Problem.declare(groups, costs=(file,), minimize="file", stored=Fraction(161, 10))


def test_the_golden_file_is_read_and_written_again_as_it_is(tmp_path: Path) -> None:
    """It is never written again: a change of format needs a new version and a new golden file."""
    problem, wanted = files.load_problem(GOLDEN), declared()
    assert problem == wanted
    assert problem.digest == wanted.digest
    files.save_problem(problem, tmp_path / "problem.toml")
    assert (tmp_path / "problem.toml").read_bytes() == GOLDEN.read_bytes()
    assert [group.bits for group in problem] == [(2.625, 3.4375, 4.5), (4.5, 8.5)]
    assert [group.length for group in problem] == [512, 576]


def test_what_no_choice_changes_is_paid_and_proved() -> None:
    answer = solve(declared(), budget=8 * 800 + encoding("q3_k").size(64, 512) + encoding("q4_0").size(256, 576))
    assert answer.to_dict()["formats"] == {"up": "q3_k", "down": "q4_0"}
    assert answer.exact_cost == 8 * (800 + 64 * 2 * 110 + 256 * 18 * 18)
    assert verify(declared(), answer).proved
