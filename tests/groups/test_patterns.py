"""Which groups a pattern means, and what is said where it means none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impq_opt import Group, GroupNames, Problem, problems
from impq_opt.errors import ProblemError
from impq_opt.groups.names import GroupNames as Names

RESNET = problems.load("resnet20-fashion-mnist")


def problem_of(*names: str, **fields: Any) -> Problem:
    return Problem.declare([Group(name, size=1, sensitivity=1.0) for name in names], **fields)


def test_kinds_and_types_are_patterns() -> None:
    names = RESNET.names
    assert [names[g] for g in RESNET.select("type:Linear")] == ["fc"]
    assert RESNET.select("type:Conv*").tolist() == list(range(19))
    assert RESNET.select("kind:weight").tolist() == list(range(20))
    assert RESNET.select("kind:activation").tolist() == RESNET.select("type:ReLU").tolist() == list(range(20, 39))
    kernel = problems.load("resnet20-fashion-mnist-kernel")
    assert len(kernel.select("type:Linear")) == len(kernel.select("fc")) > 1
    pinned = RESNET.revise(pins={"kind:activation": 8, "type:Linear": 6})
    assert dict(pinned.pins) == {19: 5} | dict.fromkeys(range(20, 39), 7)


def test_types_stay_with_the_weights_and_change_no_answer() -> None:
    alone = RESNET.revise(weights_only=True)
    assert alone.types == {label: kind for label, kind in RESNET.types.items() if kind != "ReLU"}
    assert Problem.declare([Group("a", 1, 1.0, type="Linear")]).digest == Problem.declare([Group("a", 1, 1.0)]).digest


ODD = [
    "a,b",
    "blocks[0].w",
    "[0]",
    "naïve",
    "重み",
    "a=b",
    "kind:weight",
    "type:x",
    "a b",
    "*",
    "a?",
    '"q"',
    "-x",
    "a.b[",
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_means_itself_whatever_it_holds(name: str) -> None:
    problem = problem_of("other", *ODD)
    assert problem.select(name).tolist() == [1 + ODD.index(name)]
    assert problem.revise(pins={name: 4}).pins == {1 + ODD.index(name): 3}


def test_brackets_in_wildcards_are_the_names_own_where_there_are_such_names() -> None:
    problem = problem_of("blocks[0].q", "blocks[0].k", "blocks0.q", "blocks1.q")
    assert problem.select("blocks[0].*").tolist() == [0, 1]
    assert problem.select("blocks[01].q").tolist() == [2, 3]


def test_letters_are_the_same_however_they_are_composed() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert problem_of(composed, "x").select(apart).tolist() == [0]
    assert problem_of(apart, "x").select(composed).tolist() == [0]


@given(st.text(min_size=1, max_size=8), st.sampled_from(["a", "layer.0", "[", "*", "x[0,1]"]))
def test_any_text_means_groups_or_is_told(pattern: str, label: str) -> None:
    problem = problem_of(label, "other")
    try:
        found = problem.select(pattern).tolist()
    except ProblemError as error:
        assert "\n" not in str(error)
        assert pattern not in problem
    else:
        assert found
        assert set(found) <= {0, 1}


UNKNOWN = [
    ("conv11", "did you mean 'conv1'"),
    ("CONV1", "did you mean 'conv1'"),
    ("layer1", r"'layer1\.\*' means the 12 labels inside it"),
    ("zzzzzz", r"known are conv1, layer1\.0\.conv1, layer1\.0\.conv2 and 36 more"),
    ("layer9.*", "did you mean"),
    ("kind:bias", "must be 'kind:weight' or 'kind:activation'"),
    ("kind:", "must be 'kind:weight' or 'kind:activation'"),
    ("type:Linaer", "no layer of this type, got 'type:Linaer' .did you mean 'Linear'"),
    ("type:Q", "known are Conv2d, Linear, ReLU"),
    ("type:", "no layer of this type"),
]


@pytest.mark.parametrize(("pattern", "sentence"), UNKNOWN)
def test_what_means_nothing_is_told_with_a_few_names(pattern: str, sentence: str) -> None:
    with pytest.raises(ProblemError, match=sentence) as caught:
        RESNET.select(pattern)
    assert len(str(caught.value)) < 300
    if not pattern.startswith(("kind", "type")):
        assert "a pattern is a name, a layer, 'layer1.*', 'kind:weight'" in str(caught.value)


def test_of_kinds_and_types_that_are_not_there() -> None:
    with pytest.raises(ProblemError, match=r"the problem has no activation groups, got 'kind:activation'"):
        problem_of("a").select("kind:activation")
    with pytest.raises(ProblemError, match="it does not say of which type its layers are"):
        problem_of("a").select("type:Linear")
    with pytest.raises(ProblemError, match=r"types: no such label, got 'b' \(known are a\)"):
        problem_of("a", types={"b": "Linear"})
    with pytest.raises(ProblemError, match=r"types.a: must be the name of a kind of layer"):
        problem_of("a", types={"a": ""})


def test_the_nearest_of_many_names() -> None:
    labels = tuple(f"model.layers.{k}.mlp.experts.{e}.w{p}" for k in range(30) for e in range(80) for p in range(3))
    with pytest.raises(ProblemError, match=r"did you mean 'model\.layers\.17\.mlp\.experts\.63\.w2'"):
        Names(labels, ((),) * len(labels)).select("model.layers.17.mlp.experts.63.W2")
    with pytest.raises(ProblemError, match=r"7,197 more; a pattern"):
        GroupNames(labels, ((),) * len(labels)).select("x")
