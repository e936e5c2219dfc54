"""Problem and allocation files: what is read is what was written, and nothing else is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import strategies
from hypothesis import given, settings
from known import known, table_cost_of

import impq_opt
from impq_opt import Candidates, DamageTable, Group, GroupNames, ImpqError, Problem, files
from impq_opt.costs import TableCost

GOLDEN = Path(__file__).parents[1] / "golden"
ROOT = Path(__file__).parents[2]


def by_group() -> Problem:
    """Return a problem with everything that can be written group by group."""
    groups = [
        Group(
            "conv1", size=432, sensitivity=0.8, stderr=0.1, range=1.5, macs=1000, reads="input", layer="stem", length=27
        ),
        Group("q", size=640, sensitivity=0.1, bits=(2, 4, 8)),
        Group("k", size=640, sensitivity=0.2, bits=(2, 4.5, 8), also_reads=[("input", 50)]),
        Group("input", size=784, sensitivity=0.3, kind="activation", steps=(0, 1)),
    ]
    return Problem.declare(
        groups,
        minimize={"storage": 1, "representational": 0.1},
        bound=0.01,
        budgets={"activation-memory": "1 KiB"},
        pins={"input": 8},
        ties=[["q", "k"]],
        provenance={"network": "none", "samples": 3, "nested": {"list": [1, 2.5]}},
    )


def by_array() -> Problem:
    """Return a problem that needs an arrays file: array labels, two tables, ragged sets with formats, pins and ties."""
    rng = np.random.default_rng(3)
    names = GroupNames(("a", "b"), ((20,), (3, 5)), ("first", "second"))
    candidates = Candidates(
        ((2.0, 4.5, 8.0), (4.5, 4.5)), np.arange(35) % 2, (("int2", "int4", "int8"), ("int4", "nvfp4"))
    )
    return Problem(
        names=names,
        candidates=candidates,
        damage=DamageTable(rng.random((35, 3)), rng.random((35, 3))),
        sizes=rng.integers(1, 100, 35),
        kinds=(np.arange(35) % 3 == 0).astype(np.int8),
        ranges=rng.random(35),
        macs=rng.integers(0, 9, 35),
        reads=np.full(35, -1) + np.arange(35) % 2,
        also_reads=np.array([[3, 4, 5], [7, 1, 0]]),
        lengths=rng.integers(0, 9, 35),
        steps=np.stack([np.arange(35), np.arange(35) + 2], axis=1),
        costs=(TableCost.from_array(rng.random((35, 3)).round(3), name="latency", unit="ms", source="measured"),),
        objective={"latency": 1, "storage": Fraction(1, 7)},
        bound=Fraction(1, 3),
        budgets={"storage": Fraction(50, 3)},
        pins={3: 1, 4: 0},
        ties=((9, 7), (12, 10, 14)),
    )


def same(one: Problem, other: Problem) -> None:
    assert one.digest == other.digest
    assert dict(one.provenance) == dict(other.provenance)
    assert (one.ranges is None) == (other.ranges is None)
    if one.ranges is not None and other.ranges is not None:
        np.testing.assert_array_equal(one.ranges, other.ranges)
    mine, theirs = one.damage.stderr, other.damage.stderr
    assert (mine is None) == (theirs is None)
    if mine is not None and theirs is not None:
        np.testing.assert_array_equal(mine, theirs)
    assert [t.source for t in one.costs] == [t.source for t in other.costs]


@pytest.mark.parametrize("make", [by_group, by_array])
def test_problem_round_trip(make: Any, tmp_path: Path) -> None:
    problem = make()
    files.save_problem(problem, tmp_path / "p.toml")
    loaded = files.load_problem(tmp_path / "p.toml")
    same(problem, loaded)
    first = sorted((f.name, f.read_bytes()) for f in tmp_path.iterdir())
    files.save_problem(loaded, tmp_path / "p.toml")
    assert sorted((f.name, f.read_bytes()) for f in tmp_path.iterdir()) == first
    assert [name for name, _ in first] == (["p.toml"] if make is by_group else ["p.safetensors", "p.toml"])


@pytest.mark.parametrize("name", ["by-group", "by-array"])
def test_version_1_is_still_read(name: str) -> None:
    """The golden files are never written again: a change of format needs a new version and new golden files."""
    problem = files.load_problem(GOLDEN / f"problem-1-{name}.toml")
    expected = {"by-group": by_group, "by-array": by_array}[name]()
    if name == "by-group":
        same(expected, problem)
    assert len(problem) == len(expected)
    allocation = files.load_allocation(GOLDEN / f"allocation-1-{name}.json", problem)
    assert allocation.status is impq_opt.Status.FEASIBLE
    assert allocation.exact_lower_bound < known(allocation.exact_cost)
    assert known(allocation.exact_damage) <= known(allocation.bound)


@pytest.mark.parametrize("make", [by_group, by_array])
def test_allocation_round_trip(make: Any, tmp_path: Path) -> None:
    problem = make()
    problem = problem if make is by_group else problem.revise(budgets={"storage": 10**9}, bound=15)
    allocation = impq_opt.solve(problem, solver="milp")
    files.save_allocation(allocation, tmp_path / "a.json")
    loaded = files.load_allocation(tmp_path / "a.json", problem)
    np.testing.assert_array_equal(loaded.choice, allocation.choice)
    for name in ("status", "exact_cost", "exact_damage", "exact_lower_bound", "bound", "budgets", "certificate"):
        assert getattr(loaded, name) == getattr(allocation, name), name
    for name in ("solver", "seed", "seconds", "stop", "minimizes", "diagnosis"):
        assert getattr(loaded, name) == getattr(allocation, name), name


@given(problem=strategies.restricted(), bound=strategies.bounds)
@settings(max_examples=60, deadline=None)
def test_any_problem_comes_back(problem: Any, bound: Any) -> None:
    problem = problem.revise(bound=bound)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.toml"
        files.save_problem(problem, path)
        loaded = files.load_problem(path)
        same(problem, loaded)
        answer = impq_opt.solve(problem, solver="greedy")
        files.save_allocation(answer, Path(folder) / "a.json")
        again = files.load_allocation(Path(folder) / "a.json", loaded)
        assert again.status is answer.status
        if answer.choice is not None:
            np.testing.assert_array_equal(again.choice, answer.choice)


# -- places ------------------------------------------------------------------------------------------------------

HEAD = 'format = "impq-opt problem"\nformat_version = 1\n'
GROUP = '[[groups]]\nname = "a"\nsize = 10\nsensitivity = 0.5\n'

BAD = {
    "empty": ("", "is not an impq-opt problem file"),
    "other toml": ("[project]\nname = 'x'\n", "is not an impq-opt problem file"),
    "not toml": ("{]", "is not valid TOML"),
    "later version": (HEAD.replace("1", "2") + GROUP, "later release"),
    "version type": (HEAD.replace("1", '"1"') + GROUP, "bad.toml: format_version: must be"),
    "no groups": (HEAD, "give either [[groups]] or [arrays]"),
    "unknown key": (HEAD + "bond = 1\n" + GROUP, "unknown key, got 'bond' (did you mean 'bound'"),
    "unknown group key": (HEAD + GROUP + "sizes = 3\n", "bad.toml: groups[0]: unknown key, got 'sizes' (did you mean"),
    "missing name": (HEAD + "[[groups]]\nsize = 1\n", "bad.toml: groups[0]: the key 'name' is missing"),
    "size text": (HEAD + GROUP.replace("10", '"ten"'), "bad.toml: groups[0].size: must be a whole number, got 'ten'"),
    "size fraction": (HEAD + GROUP.replace("10", "1.5"), "bad.toml: groups[0].size: must be a whole number, got 1.5"),
    "size zero": (HEAD + GROUP.replace("10", "0"), "bad.toml: groups[0].size (a): must be positive, got 0"),
    "size huge": (HEAD + GROUP.replace("10", "1" + "0" * 30), "bad.toml: groups[0].size: must be a whole number <="),
    "nan": (HEAD + GROUP.replace("0.5", "nan"), "bad.toml: groups[0].sensitivity (a): must be finite and not neg"),
    "infinite": (HEAD + GROUP.replace("0.5", "inf"), "bad.toml: groups[0].sensitivity (a): must be finite"),
    "negative": (HEAD + GROUP.replace("0.5", "-0.5"), "bad.toml: groups[0].sensitivity (a): must be finite"),
    "twice": (HEAD + GROUP + GROUP, "bad.toml: groups[1].name: duplicate name, got 'a'"),
    "empty name": (HEAD + GROUP.replace('"a"', '""'), "bad.toml: groups[0].name: a name must be a non-empty"),
    "bits text": (HEAD + GROUP + 'bits = [2, 4, "x"]', "bad.toml: groups[0].bits[2]: must be"),
    "bits negative": (HEAD + GROUP + "bits = [2, -4]", "bad.toml: groups[0].bits[1]: must be finite and not neg"),
    "bits nan": (HEAD + GROUP + "bits = [2, nan]", "bad.toml: groups[0].bits[1]: must be finite"),
    "bits twice": (HEAD + GROUP + "bits = [2, 2.0]", "bad.toml: groups[0].bits: must be distinct"),
    "bits empty": (HEAD + GROUP + "bits = []", "bad.toml: groups[0].bits: must name at least one precision"),
    "formats short": (HEAD + GROUP + 'bits = [2, 4]\nformats = ["x"]', "bad.toml: groups[0].formats: must have one"),
    "damage short": (
        HEAD + GROUP.replace("sensitivity = 0.5", "damage = [1]\nbits = [1, 2]"),
        "bad.toml: groups[0].damage: must have one value per candidate",
    ),
    "both": (HEAD + GROUP + "damage = [1]\nbits = [1]", "bad.toml: groups[0]: give either sensitivity or damage"),
    "kind": (
        HEAD + GROUP + 'kind = "bias"',
        "bad.toml: groups[0].kind: unknown value, got 'bias' (known are activation, weight",
    ),
    "stderr": (HEAD + GROUP + "stderr = [0.1]", "bad.toml: groups[0].stderr: must be one number"),
    "reads": (HEAD + GROUP + 'reads = "b"', "bad.toml: groups[0].reads: no such group, got 'b'"),
    "bound zero": (HEAD + "bound = 0\n" + GROUP, "bad.toml: bound: must be positive"),
    "bound nan": (HEAD + "bound = nan\n" + GROUP, "bad.toml: bound: must be finite"),
    "bound text": (HEAD + 'bound = "much"\n' + GROUP, "bad.toml: bound: must be a number, got 'much'"),
    "bound list": (HEAD + "bound = [1]\n" + GROUP, "bad.toml: bound: must be"),
    "minimize": (
        HEAD + 'minimize = "storge"\n' + GROUP,
        "bad.toml: minimize: unknown cost, got 'storge' (did you mean",
    ),
    "weight": (HEAD + "minimize = {storage = -1}\n" + GROUP, "bad.toml: minimize.storage: must be positive"),
    "budget unit": (HEAD + 'budgets = {storage = "1 KiX"}\n' + GROUP, "bad.toml: budgets.storage: unknown unit"),
    "budget name": (HEAD + "budgets = {latency = 1}\n" + GROUP, "unknown cost, got 'latency'"),
    "budget zero": (HEAD + "budgets = {storage = 0}\n" + GROUP, "bad.toml: budgets.storage: must be positive"),
    "pin name": (HEAD + "pins = {b = 1}\n" + GROUP, "bad.toml: pins.b: no such group, got 'b'"),
    "pin bits": (HEAD + "pins = {a = 9}\n" + GROUP, "bad.toml: pins: a: is pinned to a precision that is not among"),
    "tie name": (HEAD + 'ties = [["a", "b"]]\n' + GROUP, "bad.toml: ties[0]: no such group, got 'b'"),
    "tie text": (HEAD + 'ties = ["a"]\n' + GROUP, "bad.toml: ties[0]: must be a list, got 'a'"),
    "disjoint tie": (
        HEAD + 'ties = [["a", "b"]]\n' + GROUP + "bits = [1]\n" + GROUP.replace('"a"', '"b"') + "bits = [2]\n",
        "bad.toml: ties[0]: the tied groups have no candidate in common",
    ),
    "pins against tie": (
        HEAD + 'ties = [["a", "b"]]\npins = {a = 1, b = 2}\n' + GROUP + GROUP.replace('"a"', '"b"'),
        "bad.toml: ties[0]: tied groups are pinned to different bits",
    ),
    "cost undeclared": (HEAD + GROUP + "costs = {ms = [1]}\nbits = [1]", "groups[0].costs.ms: is not declared"),
    "cost short": (
        HEAD + 'costs = [{name = "ms"}]\n' + GROUP + "costs = {ms = [1]}\nbits = [1, 2]",
        "bad.toml: groups[0].costs.ms: must have one value for each of the 2 candidates",
    ),
    "cost nan": (
        HEAD + 'costs = [{name = "ms"}]\n' + GROUP + "costs = {ms = [1, nan]}\nbits = [1, 2]",
        "bad.toml: groups[0].costs.ms[1]: must be finite",
    ),
    "cost name": (
        HEAD + 'costs = [{name = "storage"}]\n' + GROUP + "costs = {storage = [1]}\nbits = [1]",
        "is the name of a built-in cost",
    ),
    "arrays outside": (
        HEAD + 'arrays = {file = "../x.safetensors", sha256 = ""}\n',
        "bad.toml: arrays.file: must be a file beside the problem file",
    ),
    "arrays absent": (
        HEAD + 'arrays = {file = "no.safetensors", sha256 = ""}\n',
        "no.safetensors: there is no such file",
    ),
    "arrays of a name that no file can have": (
        HEAD + f'arrays = {{file = "{"9" * 400}.safetensors", sha256 = ""}}\n',
        "999.safetensors: there is no such file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_problem_is_told_with_its_place(case: Any, tmp_path: Path) -> None:
    text, expected = BAD[case]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ImpqError) as caught:
        files.load_problem(path)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message.strip() or case == "not toml"


def test_hand_written_problem(tmp_path: Path) -> None:
    path = tmp_path / "hand.toml"
    path.write_text(
        HEAD
        + """
minimize = "latency"
bound = 0.01
bits = [2, 4, 8]
ties = [["blocks.0.*"]]
pins = {"blocks.1.*" = 8}
costs = [{name = "latency", unit = "ms"}]
groups = [
    {name = "blocks.0.q", size = 100, sensitivity = 0.02, costs.latency = [0.1, 0.15, 0.3]},
    {name = "blocks.0.k", size = 100, sensitivity = 0.03, costs.latency = [0.1, 0.15, 0.3]},
    {name = "blocks.1.q", size = 50, sensitivity = 0.01, costs.latency = [0.1, 0.1, 0.1]},
    {name = "head", size = 10, bits = [4, 8], damage = [0.001, 0], costs.latency = [0.05, 0.1]},
]
budgets = {storage = "1 KiB"}
"""
    )
    problem = files.load_problem(path)
    assert problem.ties == ((0, 1),)
    assert dict(problem.pins) == {2: 2}
    assert problem.budgets == {"storage": 8192}
    assert table_cost_of(problem).quantum == Fraction(1, 100)
    allocation = impq_opt.solve(problem, solver="exhaustive")
    assert allocation.status is impq_opt.Status.OPTIMAL
    assert allocation.bits.tolist() == [2, 2, 8, 4]
    assert allocation.exact_cost == Fraction("0.35")


MEASURED = (
    HEAD
    + """
minimize = "latency"
bound = 0.05
bits = [4, 8]
costs = [{name = "latency", unit = "ms", csv = "latency.csv"}]
groups = [
    {name = "conv", size = 100, sensitivity = 0.2, reads = "relu"},
    {name = "fc", size = 50, sensitivity = 0.1, reads = "relu"},
    {name = "relu", size = 30, sensitivity = 0.1, kind = "activation"},
]
"""
)
LATENCY = "layer,weight_bits,activation_bits,value\n" + "".join(
    f"{layer},{w},{a},{w * a / 100 + (layer == 'fc')}\n" for layer in ("conv", "fc") for w in (4, 8) for a in (4, 8)
)


def test_costs_measured_by_layer_come_from_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "latency.csv").write_text(LATENCY)
    (tmp_path / "p.toml").write_text(MEASURED)
    problem = files.load_problem(tmp_path / "p.toml")
    answer = impq_opt.solve(problem, solver="exhaustive")
    assert answer.exact_cost == Fraction(132, 100)  # all at 4 bits: 0.16 + 1.16
    assert impq_opt.verify(problem, answer).ok
    (tmp_path / "copy").mkdir()
    files.save_problem(problem, tmp_path / "copy" / "p.toml")  # the copy holds the numbers itself
    loaded = files.load_problem(tmp_path / "copy" / "p.toml")
    same(problem, loaded)
    assert impq_opt.solve(loaded, solver="exhaustive").exact_cost == answer.exact_cost
    for broken, expected in (
        (LATENCY.replace("fc,8,8,1.64", ""), "p.toml: "),
        (LATENCY.replace("conv", "conf"), "p.toml: costs.latency: no such layer, got 'conf'"),
        (LATENCY.replace("1.64", "nan"), "latency.csv: row 9 (fc): value: must be a number"),
        ("", "latency.csv: has no rows"),
    ):
        (tmp_path / "latency.csv").write_text(broken)
        with pytest.raises(ImpqError, match=re.escape(expected)):
            files.load_problem(tmp_path / "p.toml")
    (tmp_path / "latency.csv").unlink()
    with pytest.raises(ImpqError, match=r"latency\.csv: there is no such file"):
        files.load_problem(tmp_path / "p.toml")


# -- damaged and foreign files -----------------------------------------------------------------------------------

TOKENS = [
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"1e999",
    b'""',
    b"[]",
    b"{}",
    b"true",
    b"10" * 20,
    b"1979-05-27",
    b"\xff",
    b"\n",
]


def mutated(data: bytes, seed: int) -> bytes:
    """Return ``data`` with one to three seeded damages: cut, flipped, doubled, or with another token."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.randint(0, 12))
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            data = data[:start] + data[stop:]
        elif kind == 2:
            data = data[:start] + bytes([rng.randrange(256)]) + data[start + 1 :]
        elif kind == 3:
            data = data[:stop] + data[start:]
        else:
            numbers = list(re.finditer(rb"[0-9.]+|\"[^\"]*\"", data))
            spot = rng.choice(numbers).span() if numbers else (start, stop)
            data = data[: spot[0]] + rng.choice(TOKENS) + data[spot[1] :]
        if not data:
            break
    return data


@pytest.mark.parametrize("name", ["by-group", "by-array"])
def test_damaged_problem_files_raise_our_errors_only(name: str, tmp_path: Path) -> None:
    for file in GOLDEN.glob(f"problem-1-{name}.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / f"problem-1-{name}.toml"
    original, told = path.read_bytes(), 0
    for seed in range(400):
        path.write_bytes(mutated(original, seed))
        try:
            files.load_problem(path)
        except ImpqError:
            told += 1
    assert told > 200  # else the damage does no damage


def test_damaged_arrays_are_told(tmp_path: Path) -> None:
    toml, arrays = GOLDEN / "problem-1-by-array.toml", GOLDEN / "problem-1-by-array.safetensors"
    path = tmp_path / toml.name
    text, original = toml.read_text(), arrays.read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    for seed in range(150):
        data = mutated(original, seed)
        (tmp_path / arrays.name).write_bytes(data)
        path.write_text(text)
        if data != original:
            with pytest.raises(ImpqError, match=r"is not the arrays file that .* was written with"):
                files.load_problem(path)
        # With a digest that fits, what is inside must still be told in our words.
        path.write_text(text.replace(digest, hashlib.sha256(data).hexdigest()))
        with contextlib.suppress(ImpqError):
            files.load_problem(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: a | {"extra": np.zeros(3)}, "arrays: extra: unknown array"),
        (lambda a: a | {"sizes": a["sizes"].astype(np.float64)}, "arrays: sizes: must be a non-empty int64"),
        (lambda a: a | {"sizes": a["sizes"][:-1]}, "one name per group"),
        (lambda a: a | {"pins": np.array([[0, 9]])}, "no such candidate"),
        (lambda a: a | {"pins": np.array([[99, 0]])}, "no such group"),
        (lambda a: a | {"tie_starts": np.array([1, 2])}, "tie_starts"),
        (lambda a: a | {"set_of": a["set_of"] + 7}, "candidates.set_of"),
        (lambda a: {k: v for k, v in a.items() if k != "damage"}, "must hold sizes, and either"),
        (lambda a: {k: v for k, v in a.items() if k != "cost.latency"}, "lacks a cost"),
    ],
)
def test_arrays_that_do_not_fit_are_told(change: Callable[..., Any], expected: str, tmp_path: Path) -> None:
    toml = GOLDEN / "problem-1-by-array.toml"
    original = (GOLDEN / "problem-1-by-array.safetensors").read_bytes()
    data = safetensors.numpy.save(change(safetensors.numpy.load(original)))
    (tmp_path / "problem-1-by-array.safetensors").write_bytes(data)
    old, new = (hashlib.sha256(one).hexdigest() for one in (original, data))
    (tmp_path / toml.name).write_text(toml.read_text().replace(old, new))
    with pytest.raises(ImpqError, match=re.escape(expected)):
        files.load_problem(tmp_path / toml.name)


@pytest.mark.parametrize("name", ["by-group", "by-array"])
def test_damaged_allocation_files_raise_our_errors_only(name: str, tmp_path: Path) -> None:
    problem = files.load_problem(GOLDEN / f"problem-1-{name}.toml")
    original = (GOLDEN / f"allocation-1-{name}.json").read_bytes()
    path, told = tmp_path / "a.json", 0
    for seed in range(400):
        path.write_bytes(mutated(original, seed))
        try:
            allocation = files.load_allocation(path, problem)
            impq_opt.verify(allocation.problem, allocation, states=1000)
        except ImpqError:
            told += 1
    assert told > 200


def test_allocation_of_another_problem_is_told(tmp_path: Path) -> None:
    problem = by_group()
    other = problem.revise(pins={"conv1": 4})
    files.save_allocation(impq_opt.solve(problem, solver="milp"), tmp_path / "a.json")
    with pytest.raises(ImpqError, match=r"a\.json: problem_digest: answers another problem"):
        files.load_allocation(tmp_path / "a.json", other)


def test_revision_is_kept(tmp_path: Path) -> None:
    base = by_group()
    revision = files.Revision(pins={"conv1": "4"}, ties=[["conv1", "input"]], bits=[2, 4, 8])
    with pytest.raises(ImpqError):  # input is pinned to 8
        revision.apply(base)
    revision = files.Revision(pins={"conv1": "4"}, bits=[2, 4, 8])
    answer = impq_opt.solve(revision.apply(base), solver="milp")
    files.save_allocation(answer, tmp_path / "a.json", base=base, revision=revision)
    loaded = files.load_allocation(tmp_path / "a.json", base)
    assert loaded.problem.digest == answer.problem.digest
    np.testing.assert_array_equal(loaded.choice, answer.choice)


def test_bits_that_are_no_candidates_are_told(tmp_path: Path) -> None:
    problem = by_group()
    files.save_allocation(impq_opt.solve(problem, solver="milp"), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    for change, expected in (
        ({"conv1": 99}, r"bits\.conv1: is not among the group's candidates, got 99"),
        ({"conv9": 8}, r"bits: no such group, got 'conv9' \(did you mean 'conv1'"),
    ):
        (tmp_path / "b.json").write_text(json.dumps(document | {"bits": document["bits"] | change}))
        with pytest.raises(ImpqError, match=expected):
            files.load_allocation(tmp_path / "b.json", problem)
    del document["bits"]["q"]
    (tmp_path / "b.json").write_text(json.dumps(document))
    with pytest.raises(ImpqError, match="a group has no precision, got 'q'"):
        files.load_allocation(tmp_path / "b.json", problem)


# -- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["missing/p.toml", "file/p.toml", ".", "/dev/full"])
def test_unwritable_places_are_told(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImpqError, match=r"cannot be written|is a folder"):
        files.save_problem(by_group(), tmp_path / place)
    with pytest.raises(ImpqError, match=r"cannot be written|is a folder"):
        files.save_allocation(impq_opt.solve(by_group(), solver="milp"), tmp_path / place)
    assert sorted(tmp_path.iterdir()) == before


def test_a_device_is_not_read() -> None:
    with pytest.raises(ImpqError, match="is a device"):
        files.load_problem("/dev/zero")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(
    broken: str, failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.toml"
    files.save_problem(by_group(), path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def fail(*_args: Any) -> None:
        raise failure

    owner: Any = os if broken == "fsync" else Path
    monkeypatch.setattr(owner, broken, fail)
    with pytest.raises(ImpqError if isinstance(failure, OSError) else KeyboardInterrupt):
        files.save_problem(by_array(), path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_arrays_that_a_copy_still_names_are_kept(tmp_path: Path) -> None:
    files.save_problem(by_array(), tmp_path / "p.toml")
    (tmp_path / "copy.toml").write_bytes((tmp_path / "p.toml").read_bytes())
    other = by_array().revise(bound=7)
    rest = Problem.from_sensitivities(np.arange(1, 400), np.ones(399), bound=1.0)
    files.save_problem(rest, tmp_path / "p.toml")
    same(by_array(), files.load_problem(tmp_path / "copy.toml"))
    same(rest, files.load_problem(tmp_path / "p.toml"))
    (tmp_path / "copy.toml").unlink()
    files.save_problem(other, tmp_path / "p.toml")
    same(other, files.load_problem(tmp_path / "p.toml"))


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.toml").symlink_to(tmp_path / "real" / "p.toml")
    files.save_problem(by_group(), tmp_path / "link.toml")
    assert (tmp_path / "link.toml").is_symlink()
    same(by_group(), files.load_problem(tmp_path / "real" / "p.toml"))


WRITER = """
import sys, time, numpy as np
from impq_opt import Problem, files
problems = [
    Problem.from_sensitivities(np.full(5000, n), np.full(5000, 0.5), names=None, bound=float(n)) for n in (1, 2)
]
print("ready", flush=True)
while True:
    for problem in problems:
        files.save_problem(problem, sys.argv[1])
"""


def killed(path: Path, rng: random.Random) -> None:
    """Write problems in turn to ``path`` until a kill."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    while not path.exists():
        time.sleep(0.001)
    time.sleep(rng.random() * 0.02)
    process.kill()
    process.wait()
    process.stdout.close()


def test_killed_while_writing_the_problem_is_old_or_new_and_the_next_write_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    weights = tmp_path / "p-0123456789ab.safetensors"
    weights.write_bytes(safetensors.numpy.save({"layer": np.ones(3)}))  # somebody else's
    rng = random.Random(5)
    for turn in range(8):
        killed(path, rng)
        problem = files.load_problem(path)
        if problem.digest != by_array().digest:  # what stood there before the first write
            assert problem.bound in (1.0, 2.0)
            assert (problem.sizes == problem.bound).all()
        if turn % 2:
            files.save_problem(by_array(), path)
            same(by_array(), files.load_problem(path))
            named = re.search(r'file = "(.*)"', path.read_text())
            assert named is not None
            assert {file.name for file in tmp_path.iterdir()} == {"p.toml", weights.name, named[1]}


DYING = """
import builtins, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[3])
import test_files
from impq_opt import files
path, call = pathlib.Path(sys.argv[1]), sys.argv[2]
count = [0]

def dying(real, step):
    def called(*args, **named):
        count[0] += 1
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return called

class Half:
    def __init__(self, file, step): self.file, self.die = file, dying(lambda: None, step)
    def __enter__(self): self.file.__enter__(); return self
    def __exit__(self, *told): return self.file.__exit__(*told)
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, data):
        self.file.write(data[: len(data) // 2]); self.file.flush(); self.die(); self.file.write(data[len(data) // 2 :])

def arm(step):
    if call == "write":
        real = builtins.open
        builtins.open = lambda *args, **named: (
            Half(real(*args, **named), step) if isinstance(args[0], int) else real(*args, **named)
        )
    for home in (os, pathlib.Path):
        if call != "write" and (home, call) != (os, "replace") and hasattr(home, call):
            setattr(home, call, dying(getattr(home, call), step))

for step in range(1, 40):
    files.save_problem(test_files.rest(1), path)
    child = os.fork()
    if not child:
        arm(step)
        files.save_problem(test_files.by_array(), path)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    assert ended in (0, signal.SIGKILL), ended
    assert files.load_problem(path).digest in (test_files.rest(1).digest, test_files.by_array().digest)
    files.save_problem(test_files.by_group(), path)
    test_files.same(test_files.by_group(), files.load_problem(path))
    assert os.listdir(path.parent) == ["p.toml"], (step, os.listdir(path.parent))
    if not ended:
        break
assert not ended and step > 1
print("steps", step)
"""


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "unlink"])
def test_a_kill_at_any_step_leaves_nothing_that_the_next_write_does_not_clear(call: str, tmp_path: Path) -> None:
    """A writer kills itself at the n-th call of one kind, for every n until it gets through."""
    arguments = [sys.executable, "-c", DYING, str(tmp_path / "p.toml"), call, str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "worlds")])}
    ended = subprocess.run(arguments, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "steps" in ended.stdout


def rest(size: int) -> Problem:
    """Return a problem that needs arrays and shares none with others of another size."""
    return Problem.from_sensitivities(np.full(399, size), np.ones(399), bound=1.0)


def test_writers_take_turns_and_corrupt_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER + "        time.sleep(0.02)\n", str(path)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    try:
        until = time.monotonic() + 60
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        written = 0
        for _ in range(10):
            time.sleep(0.05)
            files.save_problem(rest(1), path)
            with files_alone(tmp_path):
                loaded = files.load_problem(path)
            written += loaded.digest != rest(1).digest
            assert len(loaded) in (399, 5000)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    files.save_problem(rest(3), path)
    same(rest(3), files.load_problem(path))
    assert len(list(tmp_path.iterdir())) == 2


@contextlib.contextmanager
def files_alone(folder: Any) -> Iterator[Any]:
    from impq_opt.documents.writing import alone

    with alone(folder) as locked:
        assert locked
        yield


def test_temporary_files_of_others_and_of_writers_without_locks_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from impq_opt.documents import writing

    left = [".x.impq-opt.tmp", ".p.toml.1234-0123abcd.tmp", ".other.tmp", "x.impq-opt.tmp"]
    for name in left:
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / left[2], (0, 0))
    files.atomic_write(tmp_path / "a", b"1")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a", *left[1:]])
    os.utime(tmp_path / left[1], (0, 0))
    files.atomic_write(tmp_path / "a", b"2")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a", *left[2:]])
    monkeypatch.setattr(writing, "_lock", lambda _descriptor: False)
    (tmp_path / left[0]).write_text("half")
    files.atomic_write(tmp_path / "a", b"3")
    assert (tmp_path / "a").read_bytes() == b"3"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a", left[0], *left[2:]])


def test_a_writer_that_stands_still_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from impq_opt.documents import writing

    monkeypatch.setattr(writing, "_PATIENCE", 0.05)
    with files_alone(tmp_path):
        other = threading.Thread(target=files.atomic_write, args=(tmp_path / "a", b"1"))
        other.start()
        other.join(20)
        assert not other.is_alive() and (tmp_path / "a").read_bytes() == b"1"


# -- text and numbers --------------------------------------------------------------------------------------------


def test_a_mark_before_utf_8_is_read_over(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    problem, path = by_group(), tmp_path / "p.toml"
    files.save_problem(problem, path)
    path.write_bytes(mark + path.read_bytes())
    same(problem, files.load_problem(path))
    answer = impq_opt.solve(problem)
    files.save_allocation(answer, tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(mark + (tmp_path / "a.json").read_bytes())
    assert files.load_allocation(tmp_path / "a.json", problem).exact_cost == answer.exact_cost
    path.write_text(MEASURED)
    (tmp_path / "latency.csv").write_bytes(mark + LATENCY.encode())
    assert files.load_problem(path).costs[0].name == "latency"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_one_sentence(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    files.save_problem(by_group(), path)
    path.write_bytes(("# \u00e9\n" + path.read_text()).encode(encoding))
    (tmp_path / "a.json").write_bytes('{"\u00e9": 1}'.encode(encoding))
    for load in (lambda: files.load_problem(path), lambda: files.load_allocation(tmp_path / "a.json", by_group())):
        with pytest.raises(ImpqError, match=r"is a text in UTF-|is not a text file|is not valid") as told:
            load()
        assert "\n" not in str(told.value)
    path.write_text(MEASURED)
    (tmp_path / "latency.csv").write_bytes(("\u00e9" + LATENCY).encode(encoding))
    with pytest.raises(ImpqError, match=r"latency.csv"):
        files.load_problem(path)


NUMBERS = {
    "bound": "bound = {}\n" + GROUP,
    "size": GROUP.replace("10", "{}"),
    "sensitivity": GROUP.replace("0.5", "{}"),
    "bits": GROUP + "bits = [{}, 8]\n",
    "damage": GROUP.replace("sensitivity = 0.5", "damage = [{}]\nbits = [2]\n"),
    "stderr": GROUP + "stderr = {}\n",
    "macs": GROUP + "macs = {}\n",
    "range": GROUP + "range = {}\n",
    "length": GROUP + "length = {}\n",
    "steps": GROUP + "steps = [{}, 0]\n",
    "weight": "minimize = {{storage = {}}}\n" + GROUP,
    "budget": "budgets = {{storage = {}}}\n" + GROUP,
    "pin": "pins = {{a = {}}}\n" + GROUP,
    "cost": 'costs = [{{name = "ms"}}]\n' + GROUP + "costs = {{ms = [{}]}}\nbits = [1]\n",
    "quantum": 'costs = [{{name = "ms", quantum = {}}}]\n' + GROUP + "costs = {{ms = [1]}}\nbits = [1]\n",
    "rounding": 'costs = [{{name = "ms", quantum = "1", rounding = {}}}]\n'
    + GROUP
    + "costs = {{ms = [1]}}\nbits = [1]\n",
    "version": "",
}
VALUES = [
    "1" + "0" * 30, "-1" + "0" * 30, "1" + "0" * 400, "9" * 5000, "1e308", "-1e308", "1e400", "inf", "-inf", "nan",
    "-0.0", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "0x7fffffffffffffff", "true", "[]",
    "{}", "1979-05-27", "''", "'1e9999999'", "'1/0'", "'1/3'", "'inf'", "'1_000'", "'0x10'", "'\u0663'", "' 1 '",
    f"'{'9' * 5000}'", f"'1/{'9' * 5000}'", f"'{'9' * 300_000}'", "5e-324", "1e-300", "2.5",
]  # fmt: skip


@pytest.mark.parametrize("place", NUMBERS)
def test_any_number_anywhere_is_read_or_told_in_one_sentence(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    for value in VALUES:
        text = HEAD.replace("1", value) + GROUP if place == "version" else HEAD + NUMBERS[place].format(value)
        path.write_text(text, encoding="utf-8")
        started = time.monotonic()
        try:
            problem = files.load_problem(path)
        except ImpqError as error:
            assert len(str(error)) < 400, (value, error)
            assert "\n" not in str(error), (value, error)
        else:
            files.save_problem(problem, tmp_path / "again.toml")
            assert files.load_problem(tmp_path / "again.toml").digest == problem.digest, value
        assert time.monotonic() - started < 10, value


@pytest.mark.parametrize(
    "value", ["1e9999999", "1e-9999999", "9" * 100_000, "1/0", "1_0", "\u0663", "0x1", "inf", "nan"]
)
@pytest.mark.parametrize("column", range(1, 4))
def test_a_cell_of_a_table_of_costs_is_a_number_or_told(value: Any, column: int, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(MEASURED)
    rows = [line.split(",") for line in LATENCY.splitlines()]
    rows[3][column] = value
    (tmp_path / "latency.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    started = time.monotonic()
    with pytest.raises(ImpqError, match=r"latency.csv: row 4 \(conv\): \w+: must ") as told:
        files.load_problem(tmp_path / "p.toml")
    assert time.monotonic() - started < 10 and len(str(told.value)) < 400
    rows[3][column] = "4.0e0" if column < 3 else "1.7e2"
    (tmp_path / "latency.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    with contextlib.suppress(ImpqError):
        files.load_problem(tmp_path / "p.toml")


DOCUMENTS = {
    "twice": '{"format": 1, "format": 2}',
    "twice inside": '{"format": {"a": 1, "b": [{"c": 1, "c": 1}]}}',
    "deep lists": "[" * 100_000,
    "deep lists, closed": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "long number": '{"format": ' + "9" * 10_000 + "}",
    "large number": '{"format": 1e400}',
    "nan": '{"format": NaN}',
    "infinity": '{"format": -Infinity}',
    "half a character": '{"format": "\\ud800"}',
    "nothing": "",
    "null": "null",
    "text": '"impq-opt allocation"',
    "nul": "\0" * 100,
    "list": '["format"]',
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_odd_json_is_one_sentence(case: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(DOCUMENTS[case])
    with pytest.raises(ImpqError, match=r"a\.json") as told:
        files.load_allocation(tmp_path / "a.json", by_group())
    assert "\n" not in str(told.value) and len(str(told.value)) < 400
    assert "twice" not in case or "stands there twice" in str(told.value)


def test_keys_that_stand_twice_in_an_answer_are_told(tmp_path: Path) -> None:
    problem = by_group()
    files.save_allocation(impq_opt.solve(problem), tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace('"bits": {', '"bits": {"q": 8, ', 1))
    with pytest.raises(ImpqError, match=r"a\.json: q: stands there twice"):
        files.load_allocation(tmp_path / "a.json", problem)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{b = " * 100_000, "a = 1\na = 2", "[a]\n[a]"])
def test_odd_toml_is_one_sentence(text: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(HEAD + text)
    with pytest.raises(ImpqError, match="is not valid TOML") as told:
        files.load_problem(tmp_path / "p.toml")
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_lists_inside_tables_inside_lists_are_written_and_read(tmp_path: Path) -> None:
    odd = {
        "list": [1, {"array": [0, 1], "b": {"c": [1]}, "d": [{"e": [2, 3]}, []]}],
        "x": [[1, 2], [3]],
        "s": ["]", "["],
    }
    problem = Problem.from_sensitivities([1, 2], [1, 2], names=["a", "b"], provenance={"odd": [odd, odd]})
    files.save_problem(problem, tmp_path / "p.toml")
    assert files.load_problem(tmp_path / "p.toml").provenance == problem.provenance


@pytest.mark.parametrize("name", ["by-group", "by-array"])
def test_golden_files_are_saved_again_as_they_are(name: str, tmp_path: Path) -> None:
    problem = files.load_problem(GOLDEN / f"problem-1-{name}.toml")
    path = tmp_path / f"problem-1-{name}.toml"
    files.save_problem(problem, path)
    assert files.load_problem(path).digest == problem.digest
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (GOLDEN / file.name).read_bytes()
