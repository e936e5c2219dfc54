"""Problems and allocations as objects: their length, their parts, what they are equal to, and what they turn into."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known

import impq_opt
from impq_opt import Allocation, Group, GroupNames, Problem, Status, allocate, files, frontier, problems, solve
from impq_opt.errors import AllocationError, MissingPackageError, ProblemError
from impq_opt.problem.uncertainty import upper_limit

RESNET = problems.load("resnet20-fashion-mnist")
FOUND = solve(RESNET, bound=0.1)


def kernels() -> Problem:
    names = GroupNames(("conv", "fc"), ((2, 3), ()), ("features", "fc"))
    sizes, sensitivities = [4, 5, 6, 7, 8, 9, 10], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    return Problem.from_sensitivities(sizes, sensitivities, names=names, bits=(2, 4, 8), bound=0.05)


# -- parts -------------------------------------------------------------------------------------------------------


def test_an_allocation_is_a_mapping_of_names_to_bits() -> None:
    found = solve(kernels())
    assert len(found) == 7
    assert [name for name, _ in found] == list(found.problem.names)
    assert dict(found) == dict(zip(found.problem.names, found.bits.tolist(), strict=True))
    assert all(type(bits) is int for _, bits in found)
    assert [found[name] for name in found.problem.names] == found.bits.tolist()
    assert found[0] == found["conv[0,0]"]
    assert found[-1] == found["fc"]
    assert type(found[-1]) is type(found["fc"]) is int
    for several in ("conv", "features", "con*"):
        assert found[several].tolist() == found.bits[:6].tolist()
    assert found["f*"].shape == (1,)  # a pattern means several, however many there are
    assert found[2:4].tolist() == found.bits[2:4].tolist()
    assert all(name in found for name in ("fc", "conv", "conv[1,2]", "features", "*", "kind:weight"))
    assert not any(name in found for name in ("x", "conv[9,9]", "kind:activation", "type:Linear", 3, None))


def test_fractional_bits_are_floats() -> None:
    problem = Problem.declare([Group("a", size=4, sensitivity=1.0, bits=(2, 4.5))])
    assert [(name, type(bits)) for name, bits in solve(problem, bound=0.1)] == [("a", float)]


def test_an_answer_without_an_allocation_says_so() -> None:
    none = solve(kernels(), bound=1e-9)
    assert none.status is Status.INFEASIBLE
    assert len(none) == 7
    for ask in (lambda: list(none), lambda: none["fc"], none.to_frame, lambda: dict(none)):
        with pytest.raises(AllocationError, match="there is no allocation: the status is infeasible"):
            ask()
    record = none.to_dict()
    assert record["bits"] is record["objective"] is None
    assert record["diagnosis"]["limit"] == "damage"
    assert "smallest reachable damage" in none._repr_html_()


def test_what_is_in_no_problem_is_told_with_its_neighbours() -> None:
    with pytest.raises(ProblemError, match=r"no such group, got 'conv11' \(did you mean 'conv1'"):
        FOUND["conv11"]
    with pytest.raises(ProblemError, match=r"it names 6 groups, such as conv\[0,0\]"):
        kernels()["conv"]
    with pytest.raises(IndexError):
        FOUND[len(FOUND)]


GROUPS = st.lists(
    st.builds(
        Group,
        name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        size=st.integers(1, 10**6),
        sensitivity=st.floats(0, 1e6),
        bits=st.lists(st.sampled_from([1.0, 2.0, 4.5, 8.0]), min_size=1, unique=True).map(tuple),
        kind=st.sampled_from(["weight", "activation"]),
        layer=st.sampled_from(["", "front", "back"]),
        stderr=st.none() | st.floats(0, 1),
        range=st.none() | st.floats(0.1, 9),
        macs=st.integers(0, 99),
        length=st.integers(0, 99),
        type=st.sampled_from(["", "Linear", "Conv2d"]),
        measured=st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda group: group.name,
)


@given(GROUPS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_groups_come_out_as_they_were_declared(groups: list[Group], tables: bool) -> None:
    if tables:
        groups = [replace(g, damage=tuple(1 / (1 + b) for b in g.bits), sensitivity=None, stderr=None) for g in groups]
    problem = Problem.declare(groups)
    again = Problem.declare(problem)
    assert again == problem
    assert again.digest == problem.digest
    expected = [replace(group, layer="" if group.layer == group.name else group.layer) for group in groups]
    assert list(problem) == expected
    assert [problem[group.name] for group in groups] == expected
    json.dumps(problem.to_dict(), allow_nan=False)


def test_groups_say_who_reads_them() -> None:
    groups = [
        Group("x", size=5, sensitivity=1.0, kind="activation", steps=(0, 2), bits=(8.0,)),
        Group("y", size=5, sensitivity=1.0, kind="activation", steps=(1, 2), bits=(8.0,)),
        Group("w", size=5, sensitivity=1.0, bits=(2.0, 8.0), reads="x", also_reads=(("y", 7),), macs=3),
    ]
    assert list(Problem.declare(groups)) == groups


# -- equality ----------------------------------------------------------------------------------------------------


def test_equal_is_what_has_the_same_contents() -> None:
    again = problems.load("resnet20-fashion-mnist")
    assert again is not RESNET
    assert again == RESNET
    assert hash(again) == hash(RESNET)
    assert solve(again, bound=0.1) == FOUND
    assert hash(solve(again, bound=0.1)) == hash(FOUND)
    assert {FOUND, solve(again, bound=0.1)} == {FOUND}
    assert copy.deepcopy(RESNET) == pickle.loads(pickle.dumps(RESNET)) == RESNET
    assert replace(RESNET, provenance={"source": "elsewhere"}) == RESNET
    assert RESNET != FOUND
    assert RESNET != 3


CHANGED: dict[str, Any] = {
    "bound": lambda p: p.revise(bound=0.5),
    "budget": lambda p: p.revise(budgets={"storage": "3MiB"}),
    "pin": lambda p: p.revise(pins={"conv1": 8}),
    "tie": lambda p: p.revise(ties=[("conv1", "fc")]),
    "cost": lambda p: p.revise(minimize="representational"),
    "candidates": lambda p: p.revise(bits=[2, 4]),
    "groups": lambda p: p.revise(weights_only=True),
    "damage": lambda p: upper_limit(p, 0.9),
    "one number": lambda p: replace(p, sizes=p.sizes + (np.arange(len(p)) == 7)),
    "names": lambda p: replace(p, names=GroupNames.numbered(len(p)), types={}),
    "grids": lambda p: replace(p, grids={"conv1": "zero"}),
    "types": lambda p: replace(p, types={}),
    "stays": lambda p: replace(p, stays=None),
    "unmeasured": lambda p: replace(p, unmeasured=np.arange(len(p)) == 0),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_differs_in_anything_is_not_equal(what: str) -> None:
    assert CHANGED[what](RESNET) != RESNET
    assert CHANGED[what](RESNET) == CHANGED[what](problems.load("resnet20-fashion-mnist"))


def test_answers_are_equal_whoever_gave_them() -> None:
    problem = kernels()
    exact, other = solve(problem), solve(problem, solver="exhaustive")
    assert exact.status is other.status is Status.OPTIMAL
    assert exact.solver != other.solver
    if np.array_equal(known(exact.choice), known(other.choice)):
        assert exact == other
    assert exact != solve(problem, bound=0.5)
    assert exact != replace(exact, status=Status.FEASIBLE)
    assert exact != replace(exact, exact_lower_bound=Fraction(1))


def test_files_give_back_what_is_equal(tmp_path: Path) -> None:
    for problem in (RESNET, kernels(), Problem.from_tables([[1, 2], [3, 4]], [[0.5, 0.1], [0.6, np.inf]])):
        files.save_problem(problem, tmp_path / "p.toml")
        loaded = files.load_problem(tmp_path / "p.toml")
        assert loaded == problem
        found = solve(problem, bound=1.5)
        files.save_allocation(found, tmp_path / "a.json")
        assert files.load_allocation(tmp_path / "a.json", loaded) == found


def test_parts_are_equal_by_content_too() -> None:
    table = [[0.5, np.inf], [0.2, 0.1]]
    assert impq_opt.DamageTable(np.array(table)) == impq_opt.DamageTable(np.array(table))
    assert impq_opt.DamageTable(np.array(table)) != impq_opt.DamageTable(np.array(table)[::-1])
    errors = impq_opt.PowerLaw(np.array([1.0, 2.0]), np.array([np.nan, 0.1]))
    assert errors == impq_opt.PowerLaw(np.array([1.0, 2.0]), np.array([np.nan, 0.1]))
    assert len({errors, impq_opt.PowerLaw(np.array([1.0, 2.0]), np.array([np.nan, 0.1]))}) == 1
    assert impq_opt.Candidates(((2.0, 4.0),)) == impq_opt.Candidates(((2, 4),))
    assert hash(known(FOUND.certificate)) == hash(solve(RESNET, bound=0.1).certificate)


# -- as other things ---------------------------------------------------------------------------------------------


def builtin(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and builtin(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(builtin, value))
    return value is None or type(value) in (str, bool, int, float)


@pytest.mark.parametrize(
    "thing",
    [
        RESNET,
        FOUND,
        frontier(RESNET),
        kernels(),
        solve(kernels(), budget=200),
        solve(kernels(), bound=1e-9),
        allocate([[Fraction(1, 3), 2]], [[Decimal("0.3"), 0.1]], bound=0.2),
        allocate([[2**60, 2**60 + 1]], [[1e308, 1e-300]], bound=0.2),
        solve(Problem.declare([Group("a", 4, 0.5, formats=("int4", "nvfp4"), bits=(4, 4.5))]), bound=1),
        Problem.declare([Group("a", 4, 0.5, measured=False)], minimize={"storage": 0.1, "representational": 2}),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_dicts_hold_plain_numbers_alone(thing: Any) -> None:
    record = thing.to_dict()
    assert builtin(record)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_dict_says_what_there_is_to_say() -> None:
    record = FOUND.to_dict()
    assert record["bits"] == dict(FOUND)
    assert (record["status"], record["objective"], record["bound"]) == ("optimal", FOUND.objective, 0.1)
    assert Fraction(record["exact"]["damage"]) == FOUND.exact_damage
    said = kernels().revise(pins={"fc": 4}, ties=[("conv[0,0]", "conv[0,1]")]).to_dict()
    assert said["pins"] == {"fc": "4"}
    assert said["ties"] == [["conv[0,0]", "conv[0,1]"]]
    assert said["groups"][6] == {"name": "fc", "size": 10, "sensitivity": 0.7, "bits": [2, 4, 8], "kind": "weight"}


def test_frames_have_a_row_a_group() -> None:
    pytest.importorskip("pandas")
    frame = FOUND.to_frame()
    assert list(frame.index) == list(RESNET.names)
    assert frame["bits"].to_dict() == dict(FOUND)
    assert frame.loc["fc", "type"] == "Linear"
    assert set(frame["kind"]) == {"weight", "activation"}
    assert frame["damage"].sum() == pytest.approx(FOUND.damage)
    frame["bits"] = 0  # a table of one's own
    assert FOUND["conv1"] > 0
    declared = RESNET.to_frame()
    assert declared["size"].tolist() == RESNET.sizes.tolist()
    assert declared.loc["fc", "sensitivity"] == RESNET["fc"].sensitivity
    ragged = Problem.from_tables([[1, 2], [3]], [[0.5, 0.1], [0.6]]).to_frame()
    assert ragged["damage 1"].isna().tolist() == [False, True]
    named = solve(Problem.declare([Group("a", 4, 0.5, formats=("int4", "nvfp4"), bits=(4, 4.5))]), bound=1).to_frame()
    assert named["format"].tolist() == ["int4"]


def test_without_pandas_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for thing in (RESNET, FOUND, frontier(RESNET)):
        with pytest.raises(MissingPackageError, match=r"^to_frame\(\) needs the package 'pandas': pip install pandas$"):
            thing.to_frame()


EVIL = ["<script>alert(1)</script>", 'a" onload="x', "</svg><b>", "\x1b[31m", "&amp;", "名前", "\u202ex"]


@given(st.lists(st.sampled_from(EVIL) | st.text(min_size=1, max_size=9), min_size=1, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_pictures_are_well_formed_and_names_in_them_text(names: list[str]) -> None:
    try:
        problem = Problem.declare(
            [
                Group(n, size=3, sensitivity=1.0, kind=k)
                for n, k in zip(names, ("weight", "activation") * 3, strict=False)
            ],
            metric=names[0],
        )
    except ProblemError:  # half of a character
        return
    for thing in (problem, solve(problem, bound=0.5), frontier(problem)):
        page = ElementTree.fromstring(thing._repr_html_())  # every tag closed, every name escaped
        tags = {element.tag.rpartition("}")[2] for element in page.iter()}
        assert tags <= {"div", "b", "table", "tr", "td", "svg", "title", "rect", "g", "path", "polyline"}
        assert not any(name.startswith("on") for element in page.iter() for name in element.attrib)


def test_pictures_of_many_groups_are_small() -> None:
    for shapes in (((80, 100),) * 5, ((),) * 21_000):
        names = GroupNames(tuple(f"layer{k}" for k in range(len(shapes))), shapes)
        count = len(names)
        rng = np.random.default_rng(0)
        problem = Problem.from_sensitivities(rng.integers(1, 9, count), rng.random(count), names=names, bits=(2, 4, 8))
        found = solve(problem, bound=0.01 * count)
        for thing in (problem, found, frontier(problem)):
            assert len(thing._repr_html_()) < 20_000
            assert len(repr(thing)) < 200
        assert len(repr(problem.names)) < 200
        assert found == solve(problem, bound=0.01 * count)


def test_the_bars_are_means_by_layer() -> None:
    found = solve(kernels())
    page = ElementTree.fromstring(found._repr_html_())
    bars = [title.text for rect in page.iter() if rect.tag.endswith("rect") for title in rect]
    sizes, bits = found.problem.sizes[:6], found.bits[:6]
    assert bars == [f"features: {float(np.average(bits, weights=sizes)):.4g}", f"fc: {found['fc']}"]


def test_representations_say_the_main_things() -> None:
    assert repr(RESNET) == "Problem(39 groups, 19 of activations, minimize=storage)"
    assert repr(kernels()) == "Problem(7 groups, minimize=storage, bound=0.05)"
    assert repr(kernels().names) == "GroupNames(7 groups, 2 labels: 'conv', 'fc')"
    assert repr(kernels().candidates) == "Candidates(1 set of bits: 2, 4, 8)"
    assert repr(solve(kernels(), bound=1e-9)) == "Allocation(infeasible, 7 groups)"
    assert repr(FOUND).startswith("Allocation(optimal, 39 groups, objective=")


def test_dir_lists_what_is_there_to_use() -> None:
    public = [name for name in dir(impq_opt) if not name.startswith("__")]
    assert public == sorted([*impq_opt.__all__, "files", "problems"])
    for thing in (RESNET, FOUND, RESNET.names, RESNET.candidates, RESNET.damage, frontier(RESNET)):
        listed = [name for name in dir(thing) if not name.startswith("__")]
        assert not [name for name in listed if name.startswith("_")]
        assert {"digest", "revise", "select", "to_dict"} <= set(listed) or not isinstance(thing, Problem)
        assert {"bits", "choice", "objective", "to_frame"} <= set(listed) or not isinstance(thing, Allocation)
