"""What the costs named flash and ram promise, held against the C file that is written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from compile_world import CC, STRICT, subject
from known import known

from impq_opt import solve
from impq_opt.compile import encoding_of, rounded_by
from impq_opt.compile.targets import load_target
from impq_opt.costs import COSTS
from impq_opt.errors import ProblemError
from impq_opt.insight.cost_at import cost_at
from impq_opt.problem.problem import Problem
from impq_opt.testing import check_cost


@pytest.mark.parametrize("name", ["flash", "ram"])
def test_conformance(name: str) -> None:
    check_cost(COSTS[name])


@pytest.mark.skipif(CC is None, reason="no C compiler")
def test_the_compiled_file_is_within_its_budgets(tmp_path: Path) -> None:
    own, ram = subject("small-cnn"), 8 * 5000
    problem = own.problem.revise(bits=range(1, 9), pins={"kind:activation": 8}, budgets={"ram": f"{ram}"})
    answer = solve(problem, budget="14KiB", minimize="flash")
    program = rounded_by(own.network, problem, answer, example=own.x).program(encoding_of(own.x.numpy()), name="told")
    compiled = load_target("c")(program, ram=ram // 8)
    for name, text in compiled.files.items():
        (tmp_path / name).write_bytes(text)
    subprocess.run([str(CC), *STRICT, "-O1", "-c", "told.c"], cwd=tmp_path, check=True)
    listed = subprocess.run(["size", "-A", "told.o"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no size of binutils")
    sections = {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed.stdout, re.MULTILINE)}
    constants = sum(size for name, size in sections.items() if name.startswith((".rodata", ".data.rel")))
    promised = float(cost_at(problem, known(answer.bits), "flash")) / 8
    assert 0.7 * promised < constants <= promised <= 14 * 1024
    least = float(cost_at(problem, known(answer.bits), "ram")) / 8
    assert 0.5 * least < sections[".bss"] <= ram / 8
    tight = load_target("c")(program, ram=0)
    assert sum(size.real for size in tight.sizes if size.name in {"activations", "scratch"}) <= least


def test_kernels_that_are_not_known_are_told() -> None:
    problem = Problem.from_sensitivities(sizes=[4, 4], sensitivities=[1.0, 2.0], bits=[2, 4], bound=1.0)
    for name in ("flash", "ram"):
        with pytest.raises(ProblemError, match=rf"costs\.{name}"):
            cost_at(problem, [4, 4], name)
