"""The checker of one page: alone, right about what is true, and not taken in."""

from __future__ import annotations

import ast
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import known

import impq_opt
from impq_opt import Group, Problem, Status, problems, solve
from impq_opt.costs import TableCost
from impq_opt.files import save_allocation, save_problem

if sys.version_info < (3, 11):
    pytest.skip("needs Python 3.11, for tomllib", allow_module_level=True)

from impq_opt.judge import standalone

CHECKER = Path(standalone.__file__)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-W", "error", str(CHECKER), "problem.toml", "answer.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def written(folder: Path, problem: Problem, **goals: Any) -> impq_opt.Allocation:
    answer = solve(problem, **goals)
    save_problem(problem, folder / "problem.toml")
    save_allocation(answer, folder / "answer.json")
    return answer


def drawn(seed: int, count: int = 12) -> Problem:
    """Return a problem by group, with any of tables, formats, ragged candidates, pins and ties."""
    draw = random.Random(seed)
    groups = []
    for i in range(count):
        bits = draw.choice([(2, 4, 8), (1, 2, 3, 4), (2, 4.5, 8)])
        own: dict[str, Any] = {"sensitivity": draw.random() * 4 ** -draw.randint(0, 3)}
        if seed % 3 == 1:
            own = {"damage": sorted((draw.random() for _ in bits), reverse=True)}
        groups.append(Group(f"g{i}", size=draw.randint(1, 300), bits=bits, **own))
    table = np.array([[draw.randint(-9, 99) / 4 for _ in range(4)] for _ in groups])
    time = replace(TableCost.from_array(table, name="time", unit="s"), fixed=seed)  # seconds that no choice changes
    costs = (time,) if seed % 4 == 3 else ()
    problem = Problem.declare(groups, costs=costs, minimize="time" if costs else "storage")
    same = [f"g{i}" for i in range(count) if problem.candidates.of(i) == problem.candidates.of(0)]
    return problem.revise(pins={"g3": problem.candidates.of(3)[1]}, ties=[same[:3]] if len(same) > 1 else [])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dual", [False, True])
def test_true_answers_are_proved(seed: int, dual: bool, tmp_path: Path) -> None:
    problem = drawn(seed)
    least = solve(problem, bound=1e9)
    goals = (
        {"budget": Fraction(known(least.exact_cost)) + 40}
        if dual
        else {"bound": float(known(least.exact_damage)) * 0.4 + 1e-3}
    )
    answer = written(tmp_path, problem, **goals)
    done = check(tmp_path)
    if answer.choice is None:
        assert "not checked" in done.stderr
        return
    assert answer.status is Status.OPTIMAL
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["resnet20-fashion-mnist", "resnet20-fashion-mnist-kernel"])
def test_the_gallery_is_proved(name: str, tmp_path: Path) -> None:
    written(tmp_path, problems.load(name), bound=0.05)
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_coupled_costs_are_claimed_and_their_sums_are_right(tmp_path: Path) -> None:
    written(tmp_path, problems.load("resnet20-fashion-mnist"), bound=0.3, minimize="bit-operations")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "WRONG" not in done.stdout
    assert "CLAIMED" in done.stdout
    assert "the cost is exactly" in done.stdout


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "cost": lambda a: a["exact"].update(cost=str(Fraction(a["exact"]["cost"]) - 1)),
    "cost as read": lambda a: a.update(cost=a["cost"] + 1),
    "damage": lambda a: a["exact"].update(damage=str(Fraction(a["exact"]["damage"]) * Fraction(2**60 - 1, 2**60))),
    "bound": lambda a: a["exact"].update(bound="1/1000000000"),
    "lower bound": lambda a: a["exact"].update(lower_bound=str(Fraction(a["exact"]["lower_bound"]) - 1)),
    "worse called optimal": lambda a: _dearer(a),  # noqa: PLW0108 - defined below
    "multiplier": lambda a: a["certificate"]["multipliers"].update(bound=-1e9),
    "a pin": lambda a: a["bits"].update(g3=8 if a["bits"]["g3"] != 8 else 4),
    "a tie": lambda a: a["bits"].update(g0=next(b for b in (2, 4, 8, 1, 3) if b != a["bits"]["g0"])),
}


def _dearer(answer: dict[str, Any]) -> None:
    """Give a group more bits, and say the true cost and damage of that as if it were the best."""
    problem = drawn(0)
    name = next(n for n in ("g5", "g6", "g7", "g8") if answer["bits"][n] != problem.candidates.of(int(n[1:]))[-1])
    group = int(name[1:])
    candidates = list(problem.candidates.of(group))
    column = candidates.index(answer["bits"][name])
    before, after = candidates[column], candidates[column + 1]
    cost = Fraction(answer["exact"]["cost"]) + int(problem.sizes[group]) * (
        Fraction(str(after)) - Fraction(str(before))
    )
    rows = problem.damage.at(np.array([group]), problem.candidates.of(group))[0]
    damage = Fraction(answer["exact"]["damage"]) + Fraction(rows[column + 1]) - Fraction(rows[column])
    answer["bits"][name] = after
    answer["exact"] |= {"cost": str(cost), "damage": str(damage), "lower_bound": str(cost)}
    answer |= {"cost": float(cost), "objective": float(cost), "damage": float(damage), "lower_bound": float(cost)}


@pytest.mark.parametrize("lie", FORGERIES)
def test_forgeries_are_found(lie: str, tmp_path: Path) -> None:
    answer = written(tmp_path, drawn(0), bound=0.2)
    assert answer.status is Status.OPTIMAL
    assert check(tmp_path).returncode == 0
    document = json.loads((tmp_path / "answer.json").read_text())
    FORGERIES[lie](document)
    (tmp_path / "answer.json").write_text(json.dumps(document))
    done = check(tmp_path)
    assert done.returncode != 0, done.stdout
    assert "WRONG" in done.stdout or "CLAIMED" in done.stdout


def test_changed_arrays_are_found(tmp_path: Path) -> None:
    written(tmp_path, problems.load("resnet20-fashion-mnist-kernel"), bound=0.05)
    arrays = next(tmp_path.glob("*.safetensors"))
    data = bytearray(arrays.read_bytes())
    data[-3] ^= 1
    arrays.write_bytes(data)
    assert "WRONG" in check(tmp_path).stdout


def test_it_stands_alone_and_is_short() -> None:
    text = CHECKER.read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 250


@pytest.mark.parametrize("seed", range(100))
def test_its_enumeration_is_complete_to_the_last_unit(seed: int) -> None:
    from impq_opt.judge.standalone import nothing_below

    draw = random.Random(seed)
    size, units = 4, [((g,), [(k,) for k in range(3)]) for g in range(4)]
    main, limited = ([[Fraction(draw.randint(0, 9), 4) for _ in range(3)] for _ in range(size)] for _ in "ab")
    limit = sum((row[draw.randrange(3)] for row in limited), Fraction(0))  # met exactly
    every = list(itertools.product(range(3), repeat=size))
    kept = [one for one in every if sum(row[k] for row, k in zip(limited, one, strict=True)) <= limit]
    best = min(sum((row[k] for row, k in zip(main, one, strict=True)), Fraction(0)) for one in kept)
    for price in (Fraction(0), Fraction(1), Fraction(draw.randint(0, 20), 7)):
        assert nothing_below(best, main, limited, limit, price, units)
        assert not nothing_below(best + Fraction(1, 4), main, limited, limit, price, units)


def test_no_better_answer_is_left_out_for_using_up_the_room() -> None:
    from impq_opt.judge.standalone import nothing_below

    main, limited = [[Fraction(0), Fraction(2)]], [[Fraction(1), Fraction(0)]]
    for price in (
        Fraction(1),
        Fraction(3),
    ):  # at 3 what costs 0 is 1 above the least: all the room that a target of 1 has
        assert not nothing_below(Fraction(1), main, limited, Fraction(1), price, [((0,), [(0,), (1,)])])
    assert nothing_below(Fraction(0), main, limited, Fraction(1), Fraction(3), [((0,), [(0,), (1,)])])


def test_tied_formats_of_one_width(tmp_path: Path) -> None:
    groups = [Group(name, size=10, damage=(1.0, 0.5), bits=(4, 4), formats=("x", "y")) for name in "ab"]
    answer = written(tmp_path, Problem.declare(groups, ties=[["a", "b"]]), bound=1.0)
    assert answer.exact_damage == 1
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
