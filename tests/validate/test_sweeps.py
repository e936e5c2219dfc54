"""Several allocations in one sweep: the same answers as one at a time, from data that are read once."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import networkx as nx
import numpy as np
import pytest
from known import known
from measure_world import data_of, digits_network, tensor_of
from safetensors.torch import save_file

from impq_opt import solve
from impq_opt.cli import _progress, run
from impq_opt.data import load_data
from impq_opt.errors import DataError
from impq_opt.files import save_allocation, save_problem
from impq_opt.groups.candidates import Candidates
from impq_opt.measure import Sampling, measure
from impq_opt.tracing.batches import batch_size
from impq_opt.validate.reality import Validation


@pytest.fixture(scope="module")
def problem() -> Any:
    return measure(
        digits_network(), load_data("digits"), groups="kernel", residual="accumulate", bits=range(1, 9),
        sampling=Sampling(samples=400, concede=0.01),
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The problem, its network's weights, and three allocations; the arguments that validate them."""
    folder = tmp_path_factory.mktemp("files")
    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, folder / "w.safetensors")
    save_problem(problem, folder / "p.toml")
    (folder / "other").mkdir()
    for name, bound in (("a", 0.3), ("b", 0.8), ("other/a", 3.0)):
        save_allocation(solve(problem, bound=bound), folder / f"{name}.json")
    return folder


def command(folder: Any, *allocations: Any) -> list[Any]:
    where = ["--network", "small-cnn", "--weights", str(folder / "w.safetensors"), "--data", "digits"]
    return ["validate", str(folder / "p.toml"), *(str(folder / name) for name in allocations), *where, "--threads", "1"]


class Counted:
    """Samples as a list, as pictures in a folder are; counts how often each is read."""

    def __init__(self, data: Any, count: Any) -> None:
        self.data, self.read = data, [0] * count

    def __len__(self) -> int:
        return len(self.read)

    def __getitem__(self, row: Any) -> Any:
        self.read[row] += 1
        return self.data.inputs[row], int(self.data.labels[row])


def test_all_at_once_are_as_one_by_one_and_in_several_sweeps(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = digits_network(), load_data("digits", "test")
    random = np.random.default_rng(0)
    allocations = [random.integers(2, 6, len(problem)).astype(float) for _ in range(5)]
    whole = Validation(network, problem, data, samples=20).hold_all(allocations)
    held = Validation(network, problem, data, samples=20)
    assert whole == [held.hold(bits) for bits in allocations]
    assert len({reality.mismatch for reality in whole}) > 1
    monkeypatch.setattr("impq_opt.validate.reality.together", lambda weights: 2)
    assert Validation(network, problem, data, samples=20).hold_all(allocations) == whole
    assert held.hold_all([]) == []


def test_every_sample_is_read_once_for_all_allocations(problem: Any) -> None:
    counted = Counted(load_data("digits", "test"), 60)
    held = Validation(digits_network(), problem, data_of(counted))
    before = list(counted.read)
    held.hold_all([np.full(len(problem), float(b)) for b in (2, 3, 4, 8)])
    assert [after - first for after, first in zip(counted.read, before, strict=True)] == [1] * 60


def test_bounds_on_samples_are_there_where_asked(problem: Any) -> None:
    held = Validation(digits_network(), problem, load_data("digits", "test"))
    reality = held.hold(np.full(len(problem), 4.0))
    assert (reality.here, reality.clipped, reality.gaussian, reality.looked_at) == (None, None, None, 0)


def test_progress_tells_how_much_there_is(problem: Any) -> None:
    told = []
    data = load_data("digits", "test")
    held = Validation(digits_network(), problem, data, samples=100)
    held.hold_all([np.full(len(problem), b) for b in (2.0, 3.0)], lambda *what: told.append(what))
    for part, total in (("decisions", 3 * len(data)), ("bounds on samples", 100)):
        done = [count for name, count, whole in told if name == part and whole == total]
        assert done == sorted(done)
        assert done[-1] == total
    assert len({name for name, _, _ in told}) == 2


@pytest.mark.parametrize("wrong", [[4.0], 5.5])
def test_what_is_no_candidate_is_told(problem: Any, wrong: Any) -> None:
    held = Validation(digits_network(), problem, load_data("digits", "test"))
    bits = wrong if isinstance(wrong, list) else np.full(len(problem), wrong)
    with pytest.raises(DataError, match=r"one precision per group|is no candidate of the group"):
        held.hold(bits)


def test_columns_are_found_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    sets = ((2.0, 4.0, 4.25), (8.0,), (4.0, 2.0, 4.0))
    candidates = Candidates(sets, random.integers(0, 3, 200), (("a", "b", "c"), ("d",), ("e", "f", "g")))
    bits = random.choice([2.0, 4.0, 4.25, 8.0, 3.0], 200)
    alone = [candidates.position(int(n), b) for n, b in zip(known(candidates.set_of), bits.tolist(), strict=True)]
    assert candidates.columns(bits).tolist() == [-1 if column is None else column for column in alone]
    assert {-1, 0, 1, 2} == set(candidates.columns(bits).tolist())


def chain(*shapes: Any) -> Any:
    graph = nx.DiGraph()
    for number, shape in enumerate(shapes):
        graph.add_node(number, shape=shape)
        graph.add_edges_from([(number - 1, number)] if number else [])
    return graph


def test_large_tensors_make_small_batches() -> None:
    assert batch_size(chain((3, 8, 8), (10,))) == 64
    large = chain((3, 1024, 1024), (64, 1024, 1024), (10,))
    assert batch_size(large) == 1
    skip = chain((1024, 1024), (1024, 1024), (1024, 1024), (1024, 1024), (10,))
    alone = batch_size(skip)
    skip.add_edge(0, 4)  # the first tensor is held until the end
    assert 1 < batch_size(skip) < alone <= 64


def test_batches_change_no_decision(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.full(len(problem), 3.0)
    data = data_of(tensor_of(load_data("digits", "test"))[:50])
    whole = Validation(digits_network(), problem, data).hold(bits)
    monkeypatch.setattr("impq_opt.validate.reality.batch_size", lambda graph: 7)
    assert Validation(digits_network(), problem, data).hold(bits) == whole


def test_several_allocations_are_rows_of_one_table(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(files, "a.json", "b.json", "other/a.json")) == 0
    printed = capsys.readouterr().out
    assert "bounds on" not in printed
    assert "on samples" not in printed
    rows = [line.split() for line in printed.splitlines()[2:5]]
    assert [row[0] for row in rows] == [str(files / "a.json"), "b", str(files / "other" / "a.json")]
    assert all(re.fullmatch(r"[\d.]+%", row[-1]) for row in rows)
    assert run([*command(files, "a.json"), "--samples", "8"]) == 0
    assert "bounds on 8 of them" in capsys.readouterr().out
    assert run([*command(files, "a.json"), "--samples", "-1"]) == 2


def test_lines_tell_of_long_work_where_nobody_watches(
    files: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "_FIRST", 0.0)
    assert run(command(files, "a.json", "b.json")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # the next one a minute later
    assert re.fullmatch(r"impq-opt: validating on digits: decisions: \d+%, about \d+ s left", lines[0])


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    with _progress.shown("validating on [red]\x1b[41m") as tell:
        for done in (0, 5, 10):
            tell("decisions", done, 10)
        tell("bounds on samples", 0, 10)
        printed: Any = sys.stderr
    assert "validating on [red]" in printed.getvalue()
    assert "\x1b[41m" not in printed.getvalue()
    assert "bounds on samples" in printed.getvalue()


def test_times_are_for_people() -> None:
    assert [_progress.duration(seconds) for seconds in (3.2, 89, 200, 7500)] == ["3 s", "89 s", "3 min", "2 h 5 min"]
