"""The picture of a network's graph: what is kept for a residual sum, what bits look like, and its legend."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from impq_opt import Group, Problem, problems
from impq_opt.insight.picture import graph_svg, network_graph

_SVG = "{http://www.w3.org/2000/svg}"


def _texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{_SVG}text")]


def test_each_residual_block_keeps_its_input_until_its_sum() -> None:
    graph = network_graph(problems.load("resnet20-fashion-mnist"))
    kept = {(a, b) for a, b, data in graph.edges(data=True) if data.get("kept")}
    outputs = ["relu1", *(f"layer{stage}.{block}.relu2" for stage in (1, 2, 3) for block in range(3))]
    assert kept == set(pairwise(outputs))


def test_a_chain_keeps_nothing() -> None:
    graph = network_graph(problems.load("mobilenet-v1-synthetic"))
    assert not [1 for *_, data in graph.edges(data=True) if data.get("kept")]


def test_the_legend_names_what_is_there() -> None:
    problem = problems.load("resnet20-fashion-mnist")
    bits = np.full(len(problem), 12.0)
    bits[0] = 1
    svg = graph_svg(problem, bits)
    texts = _texts(svg)
    assert "kept for a sum or a branch" in texts
    assert "12 bits" in texts
    assert not {"pinned", "tied: equal bits"} & set(texts)
    assert any(text.endswith("· 1 bit") for text in texts)
    few, many = "fill:rgb(238,244,251)", "fill:rgb(10,69,131)"
    assert svg.count(few) == 1
    assert svg.count(many) == len(problem) - 1
    plain = graph_svg(Problem.declare([Group("a", size=3, sensitivity=1.0), Group("b", size=3, sensitivity=1.0)]))
    assert _texts(plain)[:2] == ["activations", "layers"]
    assert "kept for" not in plain


def test_pins_and_ties_are_in_the_legend() -> None:
    groups = [Group(name, size=3, sensitivity=1.0, kind="activation") for name in "ab"]
    texts = _texts(graph_svg(Problem.declare(groups, ties=[("a", "b")], pins={"a": 4})))
    assert {"pinned", "tied: equal bits"} <= set(texts)
