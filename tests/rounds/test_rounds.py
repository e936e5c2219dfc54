"""Rounds: what the folder holds, when they stop, and what is measured between them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from known import known, table_of
from rounds_world import Stripes, comparable, hyper, measure, small, splits
from safetensors.torch import load_file

from impq_opt.errors import DataError
from impq_opt.files import load_problem
from impq_opt.quantize import (
    activation_quantizers,
    clips_by_norms,
    quantize,
    quantized_weights,
    state_of,
    unpack,
    unpack_into,
)
from impq_opt.rounds import Choice, PausedError, Report, accuracy, read_records, rounds
from impq_opt.rounds.latent import group_means, with_latent_ranges, with_rounding_errors
from impq_opt.rounds.policies.authors_code import AuthorsCode


def _metadata(folder: Any) -> Any:
    from safetensors import safe_open

    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return file.metadata()


def test_rounds_log_what_their_folder_holds(tmp_path: Path) -> None:
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    records = rounds(network, splits(), hyper(), tmp_path, measure=measure)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert read_records(tmp_path / "log.jsonl") == records
    assert [record.round for record in records] == [0, 1, 2, 3]
    assert [record.total_epochs for record in records] == [3, 4, 5, 6]
    assert set(records[0].bits[:18]) == {4}
    for record in records:
        problem = load_problem(tmp_path / f"round-{record.round:02}.problem.toml")
        quantized = unpack_into(small(3), tmp_path / f"round-{record.round:02}.packed.safetensors")
        for split in ("validation", "test"):
            assert accuracy(quantized, getattr(splits(), split)) == getattr(record.accuracy, split)
        weights = problem.weights()
        assert record.cost == int(np.dot(problem.sizes[weights], np.array(record.bits)[weights]))
        assert record.effective_bits.weights == record.cost / problem.sizes[weights].sum()
        chosen = 4.0 ** -np.array(record.bits, dtype=float) * problem.damage.sensitivity
        assert record.damage == pytest.approx(chosen.sum())
    for record in records[1:]:
        assert record.status == "optimal"
        assert isinstance(record.budget, dict) and record.cost <= record.budget["storage"]
    assert records[-1].accuracy.validation > 0.8


def test_the_test_data_is_read_once_after_the_last_round(tmp_path: Path) -> None:
    class Guarded(Stripes):
        reads: int = 0

        def rows(self, index: Any) -> Any:
            self.reads += 1
            assert len(json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["bits"]) == 20
            assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4
            return super().rows(index)

    data = splits()
    guarded = Guarded(200, 2)
    data = dataclasses.replace(data, test=guarded)
    rounds(small(), data, hyper(), tmp_path, measure=measure)
    assert guarded.reads == 4  # once for each of the four networks, in one batch
    rounds(small(), data, hyper(), tmp_path, measure=measure)
    assert guarded.reads == 4


@pytest.mark.parametrize(
    ("changes", "rounds_done", "why"),
    [
        ({"target_bits": 2.5}, 2, "target effective bits"),
        ({"target_cost": 1200.0}, 2, "target cost"),
        ({"floor": 1.01}, 1, "validation accuracy below the floor"),
        ({}, 3, "all rounds"),
    ],
)
def test_rounds_stop_when_told(tmp_path: Path, changes: Any, rounds_done: int, why: str) -> None:
    records = rounds(small(), splits(), hyper(epochs=0, start_epochs=0, **changes), tmp_path, measure=measure)
    assert records[-1].round == rounds_done
    state = json.loads(_metadata(tmp_path)["state"])
    assert state["done"] == why


def test_the_heuristic_stops_when_nothing_is_left(tmp_path: Path) -> None:
    one = hyper(strategy="iterative", epochs=0, start_epochs=0, rounds=30, start_bits=2, take=((1, 18),))
    records = rounds(small(), splits(), one, tmp_path, measure=measure)
    assert len(records) == 3
    assert set(records[-1].bits[:18]) == {1}


def test_strategies_start_alike(tmp_path: Path) -> None:
    rounds(small(), splits(), hyper(rounds=0), tmp_path / "start", measure=measure)
    found = {}
    for strategy in ("exact", "iterative"):
        one = hyper(strategy=strategy)
        found[strategy] = rounds(small(), splits(), one, tmp_path / strategy, measure=measure, start=tmp_path / "start")
    alone = rounds(small(), splits(), hyper(), tmp_path / "alone", measure=measure)
    assert comparable(found["exact"]) == comparable(alone)
    first = [comparable(found[s])[0] for s in found]
    assert msgspec.structs.replace(first[0], strategy="iterative") == first[1]
    with pytest.raises(DataError, match="began with another network"):
        rounds(small(1), splits(), hyper(), tmp_path / "other", measure=measure, start=tmp_path / "start")


def test_the_last_round_of_a_run_that_has_ended_is_the_start_of_another(tmp_path: Path) -> None:
    both = {"activation_bits": 0, "start_activation_bits": 6, "epochs": 1, "start_epochs": 1, "rounds": 2}
    reduce = hyper(strategy="authors-code", take=((1, 6),), **both)
    first = rounds(small(), splits(), reduce, tmp_path / "reduce", measure=measure)
    assert [record.bits[18:] for record in first] == [[6, 6]] * 3
    assert set(first[0].bits[:18]) == {4}
    further = hyper(strategy="authors-code", take=(), take_activations=((1, 1),), **both)
    start = tmp_path / "reduce"
    second = rounds(small(), splits(), further, tmp_path / "actquant", measure=measure, start=start)
    assert [record.bits[:18] for record in second] == [first[-1].bits[:18]] * 3
    assert [record.bits[18:] for record in second] == [[6, 6], [5, 5], [4, 4]]
    assert second[0].accuracy == first[-1].accuracy
    assert [record.total_epochs for record in second] == [3, 4, 5]
    packed = [unpack(tmp_path / place) for place in ("reduce/round-02.packed.safetensors", PACKED_START)]
    assert all(torch.equal(packed[0].state[name], packed[1].state[name]) for name in packed[0].state)
    for changes, why in (
        ({"bits": (1, 2, 3, 4, 5, 6)}, "has another bits"),
        ({"granularity": "layer"}, "has another granularity"),
        ({"activation_bits": 5}, "ended with activations of another precision"),
    ):
        other = hyper(strategy="authors-code", **(both | changes))
        with pytest.raises(DataError, match=why):
            rounds(small(), splits(), other, tmp_path / why, measure=measure, start=start)


PACKED_START = "actquant/round-00.packed.safetensors"


def test_a_run_that_has_not_ended_is_no_start(tmp_path: Path) -> None:
    def paused(line: str) -> None:
        if line.startswith("round 2"):
            raise PausedError

    settings = hyper(strategy="authors-code", epochs=0, start_epochs=0)
    with pytest.raises(PausedError):
        rounds(small(), splits(), settings, tmp_path / "one", measure=measure, report=Report(show=paused))
    with pytest.raises(DataError, match="has gone past round 0, and has not ended, got 1"):
        rounds(small(), splits(), settings, tmp_path / "two", measure=measure, start=tmp_path / "one")


def test_clips_follow_the_batch_norms_every_so_many_steps_and_through_a_pause(tmp_path: Path) -> None:
    settings = hyper(rounds=1, epochs=1, start_epochs=1, clip_every=3, rate=0.2)
    whole = rounds(small(), splits(), settings, tmp_path / "whole", measure=measure)
    plain = hyper(rounds=1, epochs=1, start_epochs=1, rate=0.2)
    rounds(small(), splits(), plain, tmp_path / "plain", measure=measure)
    spans = {}
    for name in ("whole", "plain"):
        packed = tmp_path / name / "round-01.packed.safetensors"
        network = unpack_into(small(), packed, example=splits().train.rows(torch.arange(2))[0])
        now = clips_by_norms(network)
        spans[name] = [(now[label], quantizer.span) for label, quantizer in activation_quantizers(network).items()]
    assert all(clip == span for clip, span in spans["whole"])  # the epoch's end reads them too
    assert not any(clip == span for clip, span in spans["plain"])
    for _ in range(100):
        try:
            report = Report(deadline=0.0)
            parts = rounds(small(), splits(), settings, tmp_path / "parts", measure=measure, report=report)
            break
        except PausedError:
            pass
    assert comparable(parts) == comparable(whole)
    names = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "parts")]
    ends = [load_file(name) for name in names]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_sensitivities_measured_at_quantized_weights_carry_the_latent_range() -> None:
    network = small()
    problem = measure(network, splits().train, 0)
    quantized = quantize(network, problem, np.random.default_rng(0).integers(1, 9, 20))
    rounded = small()
    rounded.load_state_dict(state_of(quantized, latent=False))
    corrected = with_latent_ranges(measure(rounded, splits().train, 0), quantized)
    np.testing.assert_allclose(known(corrected.ranges), known(problem.ranges), rtol=1e-6)
    raw = measure(rounded, splits().train, 0)
    moments = raw.damage.sensitivity[:18] / known(raw.ranges)[:18] ** 2
    np.testing.assert_allclose(corrected.damage.sensitivity[:18], moments * known(problem.ranges)[:18] ** 2, rtol=1e-6)


def test_measured_errors_are_those_of_the_latent_weights_by_their_own_quantizer() -> None:
    network, scheme = small(), "mid-rise:one_bit=mean"
    problem = measure(network, splits().train, 0)
    found = with_rounding_errors(problem, network, scheme)
    assert found.metric == "measured-error"
    weight = network.conv2.weight[3].detach().double()
    gradients = 12 * problem.damage.sensitivity[9] / known(problem.ranges)[9] ** 2
    middle = weight.abs().mean()  # levels of one bit
    error = float((weight - middle * weight.sign()).square().mean())
    assert table_of(found).values[9, 0] == pytest.approx(gradients * error, rel=1e-5)
    at_three = dataclasses.replace(problem, damage=problem.damage).damage.at(slice(None), (3,))[:, 0]
    bits = np.full(20, 3)
    rounded = quantized_weights(quantize(network, problem, bits, scheme=scheme))["conv2.weight"].value[3].double()
    ratio = float((rounded - weight).square().mean()) / (known(problem.ranges)[9] ** 2 / 64 / 12)
    assert table_of(found).values[9, 2] == pytest.approx(at_three[9] * ratio, rel=1e-5)
    np.testing.assert_array_equal(table_of(found).values[18:], problem.damage.at(slice(18, 20), range(1, 9)))


def test_rounds_by_measured_errors(tmp_path: Path) -> None:
    records = rounds(small(), splits(), hyper(metric="measured-error"), tmp_path, measure=measure)
    assert known(records[-1].effective_bits.weights) <= 1.5
    again = load_problem(tmp_path / "round-02.problem.toml")
    assert again.metric == "measured-error"
    assert table_of(again).values.shape == (20, 8)


def test_policies_are_told_the_magnitudes_of_the_quantized_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def choose(self: Any, turn: Any) -> Choice:
        told.append(turn.magnitudes)
        return Choice(turn.columns, done="looked")

    monkeypatch.setattr(AuthorsCode, "choose", choose)
    settings = hyper(strategy="authors-code", rounds=1, epochs=0, start_epochs=0, start_bits=1)
    rounds(small(), splits(), settings, tmp_path, measure=measure)
    weights = [small().conv1.weight, small().conv2.weight, small().fc.weight]
    halves = np.concatenate([w.detach().flatten(1).abs().amax(1).numpy() / 2 for w in weights])
    np.testing.assert_allclose(told[0][:18], halves, rtol=1e-6)  # at one bit every weight is +-M/2
    assert told[0][18:].tolist() == [1.0, 1.0]


def test_group_magnitudes_are_means_of_absolute_weights() -> None:
    network = small()
    problem = measure(network, splits().train, 0)
    means = group_means(problem, dict(network.named_parameters()))
    assert means[6] == pytest.approx(float(network.conv2.weight[0].detach().abs().mean()))
    assert means[17] == pytest.approx(float(network.fc.weight[3].detach().abs().mean()))


def unmeasured_from(first: Any) -> Any:
    """Measure as ever, and call the first kernel unmeasured from some round on."""

    def measured(network: Any, data: Any, seed: Any) -> Any:
        problem = measure(network, data, seed)
        return problem if seed < first else dataclasses.replace(problem, unmeasured=np.arange(20) == 0)

    return measured


@pytest.mark.parametrize(
    ("first", "changes", "bits"),
    [
        (0, {"strategy": "slides"}, [8, 8, 8]),
        (0, {}, [8, 8, 8]),
        (0, {"monotone": True}, [8, 8, 8]),
        (1, {"strategy": "slides", "take": ((1, 18),)}, [4, 4, 4]),
        (1, {"strategy": "authors-code", "take": ((1, 18),)}, [4, 4, 4]),
        (1, {"monotone": True}, [4, 4, 4]),
        (1, {}, [4, 8, 8]),
    ],
)
def test_what_is_not_measured_keeps_its_bits(tmp_path: Path, first: int, changes: Any, bits: Any) -> None:
    settings = hyper(rounds=2, epochs=0, start_epochs=0, **changes)
    records = rounds(small(), splits(), settings, tmp_path, measure=unmeasured_from(first))
    assert [record.bits[0] for record in records] == bits
    assert known(records[2].effective_bits.weights) < 4
