"""Packed networks of problems whose damages were prepared: shifted, tied, pinned, restated for a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measure_world import data_of, noise, seeded
from torch import nn

from impq_opt import GroupNames, Problem, solve
from impq_opt.errors import DataError
from impq_opt.exchange import writer_of
from impq_opt.exchange.scores import shifted
from impq_opt.files import load_problem, save_problem
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable
from impq_opt.quantize import choice_of_codes, code_bits, pack, quantize
from impq_opt.validate.reality import Validation


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(40, 8), nn.Linear(8, 64), nn.Linear(64, 8), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.d(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


TARGETS = (
    "",
    "torchao",
    "torchao:packed=True",
    "gptqmodel:group_size=32",
    "mlx:group_size=32",
    "modelopt:group_size=32",
)


def prepared(target: str, seed: int) -> Problem:
    """Damages with noise, so that some are negative; two layers tied and one pinned, before or behind the target."""
    rng = np.random.default_rng(seed)
    bits = tuple(float(b) for b in (writer_of(target).measured()[1] if target else (1, 2, 4, 8, 32)))
    names = GroupNames.explicit(["a", "b", "c", "d"], ["a", "b", "c", "d"])
    table = np.sort(rng.normal(size=(4, len(bits))), axis=1)[:, ::-1] - 0.5
    damage, note = shifted(table, names)
    problem = Problem(
        names=names, candidates=Candidates((bits,)), damage=DamageTable(damage), provenance=note,
        sizes=np.array([320, 512, 512, 40]), lengths=np.array([40, 8, 64, 8]),
        grids=dict.fromkeys("abcd", writer_of(target).measured()[0] if target else "zero"),
    )  # fmt: skip
    first = seed % 2
    if first:
        problem = problem.revise(ties=[("a", "c")])
    if target:
        problem = writer_of(target).prepare(problem)
    return problem if first else problem.revise(ties=[("b", "d")])


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_says_of_itself_what_it_was_packed_from(target: str, tmp_path: Path) -> None:
    network, data = seeded(Plain).eval(), data_of(noise(24, 40))
    seen: set[float] = set()
    for seed in range(2):
        problem = prepared(target, seed)
        labels = problem.candidates.labels(problem.candidates.number_of(3))
        pinned = problem.revise(pins={"d": labels[-1 - seed % len(labels) % 2]})
        save_problem(pinned, tmp_path / f"{seed}.toml")
        pinned = load_problem(tmp_path / f"{seed}.toml")
        validation = Validation(network, pinned, data)
        for budget in (44288, 30000, 24320, 13200):
            found = solve(pinned, budget=budget, minimize="storage")
            if found.choice is None:
                continue
            codes = code_bits(pinned, np.asarray(found.choice))
            assert np.array_equal(choice_of_codes(pinned, codes), found.choice)
            seen |= set(codes.tolist())
            quantized = quantize(network, pinned, found).eval()
            if (codes == 32).all():
                continue
            pack(quantized, tmp_path / "packed.safetensors")
            of_file, of_answer = validation.hold_all([tmp_path / "packed.safetensors", found])
            assert of_file == of_answer
            assert np.array_equal(validation.bits(tmp_path / "packed.safetensors"), np.asarray(found.bits))
            assert of_file.bound == pytest.approx(float(found.damage or 0.0), abs=1e-12)
    assert len(seen) > 1 and 32 in seen


def test_a_file_of_other_bits_is_told_in_bits_of_its_codes(tmp_path: Path) -> None:
    network, data = seeded(Plain).eval(), data_of(noise(24, 40))
    problem = prepared("mlx:group_size=32", 0)
    validation = Validation(network, problem, data)
    seven = quantize(network, replace(problem, pins={}), [32, 32, 7, 32], scheme="zero").eval()
    pack(seven, tmp_path / "packed.safetensors")
    said = r"packed.safetensors: c: is no candidate .* got 7.* \(it may take 2, 3, 4, 5, 6, 8, 32\)"
    with pytest.raises(DataError, match=said):
        validation.hold(tmp_path / "packed.safetensors")
    with pytest.raises(DataError, match=r"allocation: c: is no candidate of the group, got 5.5"):
        validation.hold([32, 32, 5.5, 32])


def test_a_layer_that_a_file_leaves_in_float_must_be_one_that_may(tmp_path: Path) -> None:
    network, data = seeded(Plain).eval(), data_of(noise(24, 40))
    problem = prepared("", 1)
    pack(quantize(network, problem, [32, 4, 32, 4]).eval(), tmp_path / "packed.safetensors")
    assert Validation(network, problem, data).bits(tmp_path / "packed.safetensors").tolist() == [32, 4, 32, 4]
    fewer = replace(problem, candidates=Candidates(((1.0, 2.0, 4.0, 8.0),)), damage=DamageTable(np.ones((4, 4))))
    with pytest.raises(DataError, match=r"a: is no candidate of the group, got 32.*it may take 1, 2, 4, 8"):
        Validation(network, fewer, data).hold(tmp_path / "packed.safetensors")
