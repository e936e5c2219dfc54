"""Files with what groups damage together: golden ones of both forms, read and written again as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impq_opt import Factors, Pairs, Problem, files

GOLDEN = Path(__file__).parents[1] / "golden"


def declared(form: str) -> Problem:
    """Return three layers of two candidates; numbers are sums of powers of two, the same on every machine."""
    rows = np.arange(18).reshape(3, 2, 3) / 16 - 0.5
    pairs = np.arange(8).reshape(2, 2, 2) / 8 - 0.375
    together = {
        "factors": Factors(rows, stderr=np.abs(rows) / 8),
        "pairs": Pairs(np.array([[0, 1], [0, 2]]), pairs, stderr=np.abs(pairs) / 8),
    }
    return Problem.from_tables(
        cost=np.array([[2, 4], [6, 12], [10, 20]]), damage=np.square(rows).sum(axis=2), bits=[2, 4],
        interactions=together[form],
    )  # fmt: skip


@pytest.mark.parametrize("form", ["factors", "pairs"])
def test_the_golden_files_say_what_groups_do_together_and_are_written_again_as_they_are(
    form: str, tmp_path: Path
) -> None:
    """They are never written again: a change of format needs a new version and new golden files."""
    name = f"problem-1-{form}"
    problem, wanted = files.load_problem(GOLDEN / f"{name}.toml"), declared(form)
    assert problem.interactions == wanted.interactions and problem.digest == wanted.digest
    files.save_problem(problem, tmp_path / f"{name}.toml")
    for ending in ("toml", "safetensors"):
        assert (tmp_path / f"{name}.{ending}").read_bytes() == (GOLDEN / f"{name}.{ending}").read_bytes()
