"""The frontier as an object: gone through, compared, and turned into other things."""

from __future__ import annotations

import numpy as np
import pytest

from impq_opt import Problem, frontier, problems

COST, DAMAGE = [[1, 2, 5], [1, 2, 6]], [[0.9, 0.3, 0.1], [0.8, 0.2, 0.0]]
PROBLEM = Problem.from_tables(COST, DAMAGE, names=["a", "b"])


def test_a_frontier_is_its_breakpoints() -> None:
    hull = frontier(PROBLEM)
    assert list(hull) == list(zip(hull.cost.tolist(), hull.damage.tolist(), strict=True))
    assert len(list(hull)) == len(hull) == 5
    assert all(type(number) is float for point in hull for number in point)
    assert hull.problem == PROBLEM
    assert repr(hull) == "Frontier(5 breakpoints, cost 2 to 11, damage 1.7 to 0.1)"


def test_equal_is_what_has_the_same_points_of_the_same_problem() -> None:
    hull = frontier(PROBLEM)
    assert hull == frontier(Problem.from_tables(COST, DAMAGE, names=["a", "b"]))
    assert hash(hull) == hash(frontier(PROBLEM))
    assert hull != frontier(PROBLEM.revise(pins={"a": 1}))
    assert hull != frontier(Problem.from_tables(COST, DAMAGE))
    resnet = problems.load("resnet20-fashion-mnist")
    assert frontier(resnet) != frontier(resnet, "representational")
    assert hull != 3


def test_a_dict_and_a_frame_have_a_row_a_breakpoint() -> None:
    hull = frontier(PROBLEM)
    record = hull.to_dict()
    assert record == {
        "cost_name": "cost",
        "cost": hull.cost.tolist(),
        "damage": hull.damage.tolist(),
        "moved": ["", "a=1", "b=1", "a=2", "b=2"],
    }
    pytest.importorskip("pandas")
    frame = hull.to_frame()
    assert frame["cost"].tolist() == hull.cost.tolist()
    assert np.isnan(frame["price"][0])
    assert frame["price"][1:].tolist() == hull.price.tolist()


def test_a_frontier_of_one_point_has_a_picture() -> None:
    alone = frontier(Problem.from_tables([[1]], [[0.0]]))
    assert "Frontier of 1 breakpoint<" in alone._repr_html_()
    assert '<polyline points=""' in alone._repr_html_()  # a damage of 0 has no place on a scale of powers of ten
    other = frontier(Problem.from_tables([[1]], [[0.5]]))
    assert '<polyline points="320.0,36.0"' in other._repr_html_()
