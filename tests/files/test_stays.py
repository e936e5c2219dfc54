"""What stays as it is: declared, in files, and in what is said of the whole network."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known

from impq_opt import ImpqError, Problem, Stay, files, solve, verify
from impq_opt.files.allocation_record import allocation_record

GOLDEN = Path(__file__).parents[1] / "golden"

EXPERTS = (
    Stay("experts.w1", 32768, 32, "not a weight of a convolution or linear layer"),
    Stay("gate.bias", 4, 16, "a bias"),
    Stay("scales", 10, Fraction(33, 2), "not a weight of a convolution or linear layer"),
)


def network(stays: tuple[Stay, ...] | None = EXPERTS, stored: int | Fraction = 32) -> Problem:
    """Return a problem of two weight groups and an activation, and what stays beside them."""
    return Problem.from_sensitivities(
        [256, 80, 16], [1.0, 2.0, 0.5], names=["gate", "fc", "gate.output"], kinds=["weight", "weight", "activation"],
        stays=stays, stored=stored, bound=0.01,
    )  # fmt: skip


stays = st.lists(
    st.builds(
        Stay,
        name=st.text("abc.w", min_size=1, max_size=6),
        elements=st.integers(1, 2**40),
        bits=st.sampled_from([8, 16, 32, 64, Fraction(17, 4)]),
        reason=st.sampled_from(["a bias", "not a weight of a convolution or linear layer"]),
    ),
    max_size=6,
    unique_by=lambda stay: stay.name,
)


@given(stays=stays, stored=st.sampled_from([16, 32, 64, Fraction(65, 3)]))
@settings(max_examples=40, deadline=None)
def test_what_stays_comes_back_from_files_and_adds_up(
    stays: Any, stored: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stays")
    problem = network(tuple(stays), stored)
    files.save_problem(problem, folder / "p.toml")
    loaded = files.load_problem(folder / "p.toml")
    assert loaded.stays == problem.stays and set(known(loaded.stays)) == set(stays) and loaded.stored == stored
    found = solve(loaded)
    whole = found.whole
    assert whole is not None
    total = int(found.bits[0]) * 256 + int(found.bits[1]) * 80 + sum(s.elements * Fraction(s.bits) for s in stays)
    before = 336 * Fraction(stored) + sum(s.elements * Fraction(s.bits) for s in stays)
    assert whole.bits == total and whole.ratio == before / total
    assert whole.parameters == 336 + sum(s.elements for s in stays)
    files.save_allocation(found, folder / "a.json")
    assert verify(loaded, files.load_allocation(folder / "a.json", loaded)).proved


def test_what_stays_changes_no_answer_and_no_digest() -> None:
    assert network().digest == network(None).digest == network((), 16).digest
    assert network().revise(pins={"fc": 4}, bits=[2, 4, 8], ties=[["gate", "fc"]]).stays == EXPERTS
    assert network(None).stays is None


def test_nothing_is_said_of_a_whole_network_that_is_not_known() -> None:
    found = solve(network(None))
    assert found.whole is None
    assert "whole" not in allocation_record(found)
    numbered = Problem.from_tables([[1, 2]], [[1.0, 0.0]], stays=(), bound=1)
    assert solve(numbered).whole is None
    everything = solve(network(())).whole
    assert everything is not None and everything.staying == 0 and everything.parameters == 336


@pytest.mark.parametrize("name", ["bits", "parameters", "staying", "bits_per_parameter", "compression_ratio"])
def test_a_false_number_of_the_whole_network_is_found(name: str, tmp_path: Path) -> None:
    problem = network()
    files.save_allocation(solve(problem), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    document["whole"][name] += 1
    (tmp_path / "a.json").write_text(json.dumps(document))
    found = verify(problem, files.load_allocation(tmp_path / "a.json", problem))
    assert [c.name for c in found.checks if c.verdict.value == "wrong"] == [f"whole {name}"]
    silent = verify(network(None), files.load_allocation(tmp_path / "a.json", network(None)))
    assert not silent.ok


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"elements": 0}, "at least 1"),
        ({"elements": 1.5}, "whole number"),
        ({"bits": 0}, "above 0"),
        ({"bits": float("nan")}, "finite"),
        ({"bits": 2**16}, "below 2"),
        ({"name": " "}, "not empty"),
        ({"reason": ""}, "not empty"),
    ],
)
def test_an_entry_that_cannot_be_is_one_sentence(change: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ImpqError, match=told):
        Stay(**{"name": "w", "elements": 3, "bits": 32, "reason": "a bias"} | change)
    files.save_problem(network(), tmp_path / "p.toml")
    head, entries = (tmp_path / "p.toml").read_text().split("[[stays]]", 1)
    key, value = next(iter(change.items()))
    key = {"name": '"experts.w1"', "elements": '"experts.w1"'}.get(key, key)
    shown = "nan" if value != value else json.dumps(value)  # noqa: PLR0124 - NaN is not itself
    new = f"{shown} = 3" if "name" in change else f"{key} = {shown}"
    first = re.sub(rf"^{key} = .*$", new, entries, count=1, flags=re.MULTILINE)
    assert first != entries
    (tmp_path / "p.toml").write_text(f"{head}[[stays]]{first}")
    with pytest.raises(ImpqError, match=r"stays\[0\]"):
        files.load_problem(tmp_path / "p.toml")


def test_lists_of_what_stays_are_checked() -> None:
    with pytest.raises(ImpqError, match="listed twice"):
        network((EXPERTS[0], EXPERTS[0]))
    with pytest.raises(ImpqError, match="must be a Stay"):
        network(("w1",))  # type: ignore[arg-type]
    with pytest.raises(ImpqError, match="list of Stay"):
        network(3)  # type: ignore[arg-type]
    with pytest.raises(ImpqError, match="stored"):
        network((), 0)


def test_golden_files_of_a_whole_network(tmp_path: Path) -> None:
    """They are never written again; see tests/files/test_files.py."""
    problem = files.load_problem(GOLDEN / "problem-1-whole.toml")
    assert problem.stays == EXPERTS and problem.stored == 16
    found = files.load_allocation(GOLDEN / "allocation-1-whole.json", problem)
    assert verify(problem, found).proved
    assert found.stated["whole bits"] == 32768 * 32 + 64 + 165 + int(np.dot([256, 80], found.bits[:2]))
    files.save_problem(problem, tmp_path / "p.toml")
    assert (tmp_path / "p.toml").read_bytes() == (GOLDEN / "problem-1-whole.toml").read_bytes()
