"""From a network to a folder: sizes kept, the file computes what was judged, stopped and called again."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from measure_world import digits_network
from safetensors.torch import save_file

from impq_opt import verify
from impq_opt.cli import run
from impq_opt.data import Dataset, load_data
from impq_opt.errors import AllocationError, DataError, FileError, OptionError
from impq_opt.files import load_allocation, load_problem
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.interactions import Factors
from impq_opt.measure import measure
from impq_opt.pipeline import Plan, quantize_network
from impq_opt.quantize import unpack, unpack_into

QUICK: dict[str, Any] = {"samples": 64, "metric": "measured-error", "candidates": (2.0, 3.0, 4.0, 8.0)}


@pytest.fixture(scope="module")
def network() -> Any:
    return digits_network()


@pytest.fixture(autouse=True)
def without_program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the program of torch.export, which takes longer than all else, but where it is looked at."""
    if "size_that_was_asked_for" not in request.node.name:
        monkeypatch.setattr("impq_opt.pipeline.run.program_bytes", lambda *_: (None, ""))


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Dataset]:
    return load_data("digits"), load_data("digits", "test")


def quantized(network: Any, data: Any, folder: Path, **goal: Any) -> Any:
    return quantize_network(network, data[0], data[1], Plan(**(QUICK | goal)), folder)


def test_a_file_of_at_most_the_size_that_was_asked_for(
    network: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = quantized(network, data, tmp_path / "a", budget="16KiB", groups="kernel")
    file = tmp_path / "a" / "network.safetensors"
    rows = {row.name.split()[0]: row for row in outcome.rows}
    size = file.stat().st_size
    assert outcome.met and size <= 16 * 1024 and rows["allocated"].size <= 16 * 1024 >= rows["uniform"].size
    assert rows[outcome.chosen.split()[0]].size == size

    problem = load_problem(tmp_path / "a" / "problem.toml")
    answer = load_allocation(tmp_path / "a" / "allocation.json", problem)
    assert verify(problem, answer).proved
    held = unpack(file)
    weights = {name: bits.tolist() for name, bits in held.bits.items()}
    assert [b for bits in weights.values() for b in bits] == [int(b) for b in answer.bits]

    labels, inputs = data[1].labels, data[1].inputs
    packed = unpack_into(network, file).eval()
    program = torch.export.load(io.BytesIO((tmp_path / "a" / "network.pt2").read_bytes())).module()
    with torch.no_grad():
        logits = packed(inputs)
        torch.testing.assert_close(program(inputs), logits)  # a batch of another size than it was exported with
    told = rows[outcome.chosen.split()[0]].accuracy
    assert told == pytest.approx(float((logits.argmax(1) == labels).double().mean()), abs=2 / len(labels))
    record = json.loads((tmp_path / "a" / "result.json").read_text())
    assert record["chosen"] == outcome.chosen and len(record["rows"]) == len(outcome.rows)
    with monkeypatch.context() as patched:  # what is finished is told again, and nothing is done
        patched.setattr("impq_opt.pipeline.run.Workshop", _stopping)
        again = quantized(network, data, tmp_path / "a", budget="16KiB", groups="kernel")
    assert again == outcome and again.allocation == outcome.allocation


def test_stopped_anywhere_it_goes_on_to_the_same_files(
    network: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized(network, data, tmp_path / "whole", bits=3)
    for stop in ("save_problem", "save_allocation", "render_page"):
        with monkeypatch.context() as patched:
            patched.setattr(f"impq_opt.pipeline.run.{stop}", _stopping)
            with pytest.raises(KeyboardInterrupt):
                quantized(network, data, tmp_path / "pieces", bits=3)
    quantized(network, data, tmp_path / "pieces", bits=3)
    for name in ("allocation.json", "network.safetensors"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "pieces"))
        if name == "allocation.json":  # but for the seconds that it took
            one, other = (json.dumps(_timeless(json.loads(part))).encode() for part in (one, other))
        assert one == other
    with pytest.raises(FileError, match="holds a run that was asked for something else, got 'bits'"):
        quantized(network, data, tmp_path / "pieces", bits=4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="is a folder of something else"):
        quantized(network, data, tmp_path / "other", bits=4)


def _stopping(*arguments: Any, **named: Any) -> Any:
    raise KeyboardInterrupt


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if "seconds" not in key and "time" not in key}
    return value


def test_uniform_precision_is_taken_where_it_is_closer(
    network: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest layer is said not to matter, so that it gets one bit and the others eight."""

    def mistaken(*arguments: Any, **named: Any) -> Any:
        problem = measure(*arguments, **named)
        table = problem.damage.at(slice(None), (1.0, 3.0, 8.0)).copy()
        table[problem.sizes.argmax()] *= 1e-9
        return replace(problem, damage=DamageTable(table))

    monkeypatch.setattr("impq_opt.pipeline.run.measure", mistaken)
    outcome = quantized(network, data, tmp_path, bits=3, candidates=(1.0, 3.0, 8.0))
    assert outcome.chosen == "uniform 3" and outcome.ahead is not None and outcome.ahead.value < 0
    problem = load_problem(tmp_path / "problem.toml")
    assert set(load_allocation(tmp_path / "allocation.json", problem).bits) == {3}


def test_the_cheapest_network_within_a_loss(network: Any, data: Any, tmp_path: Path) -> None:
    outcome = quantized(network, data, tmp_path / "a", accuracy_loss=0.1, candidates=(1.0, 2.0, 3.0, 4.0))
    loss = outcome.rows[1].loss
    assert outcome.met and loss is not None and loss.highest(0.975) <= 0.1 and outcome.rows[1].weight_bits < 4
    few = data[0], data[1].subset(torch.arange(40))
    outcome = quantized(network, few, tmp_path / "b", accuracy_loss=0.005, candidates=(4.0, 8.0))
    assert not outcome.met and "too few to tell that it is not above 0.50" in outcome.reason
    unlabelled = data[0], Dataset(data[1].inputs, name="bare")
    with pytest.raises(DataError, match="has no labels, which are needed"):
        quantized(network, unlabelled, tmp_path / "c", accuracy_loss=0.1)


def test_other_costs_are_limited_besides(
    network: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = quantized(network, data, tmp_path, bound=3.0, metric="impq", limits={"storage": "4bpw"})
    problem = load_problem(tmp_path / "problem.toml")
    answer = load_allocation(tmp_path / "allocation.json", problem)  # an answer to the problem of the file
    assert verify(problem, answer).proved and "storage" in answer.budgets
    assert outcome.rows[1].weight_bits <= 4
    with monkeypatch.context() as patched:
        patched.setattr("impq_opt.pipeline.run.measure", _stopping)  # it is told before the work
        with pytest.raises(OptionError, match="unknown cost"):
            quantized(network, data, tmp_path / "b", bits=3, limits={"storag": "4bpw"})


def test_what_layers_do_together_is_counted(network: Any, data: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {"metric": "kl:after=statistics", "interactions": True, "candidates": (2.0, 4.0)}
    outcome = quantized(network, data, tmp_path, bits=3, **how)
    problem = load_problem(tmp_path / "problem.toml")
    assert isinstance(problem.interactions, Factors) and problem.metric == "kl:after=statistics"
    assert load_allocation(tmp_path / "allocation.json", problem).together is not None
    assert outcome.rows[1].weight_bits <= 3


def test_what_a_target_stores_is_what_is_made(network: Any, data: Any, tmp_path: Path) -> None:
    outcome = quantized(network, data, tmp_path, bits=4, target="torchao:packed=True", candidates=())
    problem = load_problem(tmp_path / "problem.toml")
    assert set(problem.grids.values()) == {"integer"}
    config = json.loads((tmp_path / "torchao.json").read_text())["_data"]["fqn_to_config"]
    held = unpack(tmp_path / "network.safetensors")
    for name, bits in held.bits.items():
        told = config[name.removesuffix(".weight")]["_data"]["weight_dtype"]["_data"]
        assert {f"int{b}" for b in bits.tolist()} == {told}
    assert sum(entry is not None for entry in config.values()) == len(held.bits) and outcome.rows[1].weight_bits <= 4


def test_what_cannot_be_is_told(network: Any, data: Any, tmp_path: Path) -> None:
    with pytest.raises(AllocationError, match=r"the smallest file of this network has [\d,]+ bytes, [\d,]+ of them"):
        quantized(network, data, tmp_path / "a", budget="1KiB")
    with pytest.raises(OptionError, match="give one goal"):
        Plan(bits=3, budget="1KiB")
    with pytest.raises(OptionError, match="give one goal"):
        Plan()
    with pytest.raises(OptionError, match=r"budget: unknown unit.*'furlong'"):
        Plan(budget="12furlong")
    with pytest.raises(OptionError, match="interactions: are measured by kl and fisher, got 'fit'"):
        Plan(bits=3, metric="fit", interactions=True)
    for other in ({"grid": "zero"}, {"activation_bits": 8}, {"groups": "kernel"}, {"candidates": (9.0,)}):
        with pytest.raises(OptionError, match=r"torchao"):
            Plan(bits=3, target="torchao", **other)
    with pytest.raises(OptionError, match="accuracy_loss: must be between 0 and 1"):
        Plan(accuracy_loss=1.5)


def test_from_the_command_line(network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({name: part.contiguous() for name, part in network.state_dict().items()}, tmp_path / "w.safetensors")
    command = [
        "quantize", "small-cnn", "--weights", tmp_path / "w.safetensors", "--data", "digits", "--bits", 3,
        "--activation-bits", 8, "--metric", "measured-error", "--samples", 64, "-o", tmp_path / "out",
    ]  # fmt: skip
    assert run([str(word) for word in command]) == 0
    shown = capsys.readouterr().out
    assert "allocated ahead of uniform 3" in shown and "statistics" in shown
    assert run(["quantize", "small-cnn", "--data", "digits", "-o", str(tmp_path / "x")]) == 2
    assert "give one goal" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
