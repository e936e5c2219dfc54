"""Steps of calibration: what each does against a plain loop, and what is kept, undone, refused or left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from calibrate_world import averaged, same, state, world

from impq_opt.calibrate import Calibration, Change, Closeness, Work, calibrate, calibration_names, refer
from impq_opt.calibrate.graphs import graph_of
from impq_opt.data import Dataset
from impq_opt.errors import DataError, OptionError
from impq_opt.quantize import pack, quantized_weights, unpack_into
from impq_opt.testing import ConformanceError, check_calibration
from impq_opt.tracing.trace import trace


@pytest.mark.parametrize(("name", "weights_only"), [("net", True), ("net", False), ("norms", True)])
def test_statistics_are_those_of_a_plain_loop(name: Any, weights_only: bool) -> None:
    """Two batches of 33 to calibrate on, and 33 held out."""
    found = world(name)
    quantized = found.quantized(2, weights_only=weights_only)
    floats, before = state(found.network), state(quantized)
    done = found.calibrate(quantized, ["statistics"], samples=66)
    assert [(step.name, step.outcome) for step in done.steps] == [("statistics", "kept")]
    assert (done.samples, done.held, done.after.kl < done.before.kl) == (66, 33, True)
    assert same(state(found.network), floats) and same(state(quantized), before)
    after, expected = state(done.network), averaged(quantized, found.calibrated_on(66).tensor_split(2))
    assert all(after[key].equal(before[key]) for key in before.keys() - expected)
    for key, tensor in expected.items():
        assert not torch.equal(after[key], before[key])
        torch.testing.assert_close(after[key], tensor, rtol=1e-4, atol=1e-5)
    assert {f"{norm}.running_mean" for norm in done.steps[0].changed} == {key for key in expected if "mean" in key}


def test_statistics_are_refused_where_the_float_network_does_not_survive_them() -> None:
    """Statistics that are not those of the data: the float network would lose more by them than by rounding."""
    found = world("net", foreign=True)
    (step,) = found.calibrate(found.quantized(6), ["statistics"]).steps
    assert (step.outcome, step.kept, step.changed, step.after) == ("refused", False, (), step.before)
    assert step.reason.startswith("the float network does not survive it on these data")


def test_a_network_without_batch_norms_has_none() -> None:
    found = world("branches")
    done = found.calibrate(found.quantized(3), ["statistics"])
    assert [(step.outcome, step.reason) for step in done.steps] == [
        ("nothing", "the network has no batch-norm with running statistics")
    ]
    assert done.after == done.before


@dataclass(frozen=True)
class Factor(Calibration):
    """Multiplies the bias of the last layer, and what is behind the first."""

    name = "factor"
    summary = "a factor"
    source = "none"

    by: float = 1.0

    def apply(self, work: Work) -> Change:
        work.quantized.get_submodule("fc").bias.mul_(self.by)  # type: ignore[operator]
        work.quantized.get_submodule("bn1").running_var.mul_(self.by)  # type: ignore[operator]
        return Change(("fc", "bn1"))


@pytest.mark.parametrize(("by", "weights_only"), [(50.0, False), (math.nan, True)])
def test_a_step_that_does_harm_is_undone(by: float, weights_only: bool) -> None:
    found = world("net")
    quantized = found.quantized(4, weights_only=weights_only)
    done = found.calibrate(quantized, [Factor(by), Factor(1.0)], samples=66)
    assert [step.outcome for step in done.steps] == ["undone", "kept"]
    assert done.steps[0].name == f"factor:by={by}"
    assert done.steps[0].reason.startswith("it took the network away from the float one: from KL ")
    assert done.after.kl == done.steps[1].before.kl == done.before.kl
    assert same(state(done.network), state(quantized))


def test_what_is_worse_is_worse_beyond_two_standard_errors_of_the_paired_difference() -> None:
    each = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)

    def close(each: Any) -> Closeness:
        return Closeness(float(each.mean()), 0.0, 1.0, each)

    shifts = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)  # of standard error 0.577
    assert close(each + 0.01).worse_than(close(each))
    assert not close(each - 0.01).worse_than(close(each)) and not close(each).worse_than(close(each))
    assert not close(each + shifts + 1.15).worse_than(close(each))
    assert close(each + shifts + 1.16).worse_than(close(each))
    lost = close(each * math.inf)
    assert lost.worse_than(close(each)) and not close(each).worse_than(lost) and not lost.worse_than(lost)


@pytest.mark.parametrize("weights_only", [True, False])
def test_modes_stay_and_the_network_can_be_packed(tmp_path: Path, weights_only: bool) -> None:
    found = world("net")
    quantized = found.quantized(3, weights_only=weights_only)
    quantized.train().get_submodule("bn1").eval()
    done = found.calibrate(quantized)
    modes = [[module.training for _, module in each.named_modules()] for each in (quantized, done.network)]
    assert modes[0] == modes[1] and type(done.network) is type(quantized)
    pack(done.network, tmp_path / "packed")
    with torch.no_grad():
        unpacked = unpack_into(found.network, tmp_path / "packed", example=found.x[:2]).eval()
        assert torch.equal(unpacked(found.x), done.network.eval()(found.x))


def test_the_graph_of_a_network_with_its_own_modules_is_the_network() -> None:
    found = world("norms")
    quantized, x = found.quantized(3), found.x
    graph = graph_of(quantized, trace(found.network, x[:2])).eval()
    with torch.no_grad():
        torch.testing.assert_close(graph(x), quantized(x))
        for weight in quantized_weights(graph).values():
            weight.latent.mul_(-1)
        torch.testing.assert_close(graph(x), quantized(x))
    assert {id(p) for p in graph.parameters()} == {id(p) for p in quantized.parameters()}


def test_what_does_not_fit_is_told() -> None:
    found = world("net")
    quantized = found.quantized(3)
    with pytest.raises(OptionError, match=r"unknown calibration, got 'statistic' \(did you mean 'statistics'"):
        found.calibrate(quantized, ["statistic"])
    with pytest.raises(OptionError, match=r"samples: must be at least 1, got 0"):
        found.calibrate(quantized, samples=0)
    with pytest.raises(OptionError, match=r"calibrate: has no quantized weight"):
        found.calibrate(found.network)
    with pytest.raises(DataError, match=r"data tensors: has too few samples to calibrate on, got 5"):
        calibrate(quantized, found.network, Dataset(found.x[:5]))
    for weights_only in (True, False):
        of_other = world("branches").quantized(3, weights_only=weights_only)
        with pytest.raises(DataError, match=r"is no quantized copy of the float network"):
            found.calibrate(of_other)


@pytest.mark.parametrize("name", calibration_names())
def test_shipped_parts_keep_the_rules(name: str) -> None:
    check_calibration(name + ":steps=20" * (name == "adaround"))


@dataclass(frozen=True)
class Silent(Factor):
    """Says nothing of what it did."""

    by: float = 2.0

    def apply(self, work: Work) -> Change:
        work.quantized.get_submodule("out").bias.mul_(self.by)  # type: ignore[operator]
        return Change()


@dataclass(frozen=True)
class Meddling(Factor):
    """Changes the float network."""

    def apply(self, work: Work) -> Change:
        next(iter(work.float.tensors.values())).add_(1)
        return Change(notes=("nothing",))


@dataclass(frozen=True)
class Peeking(Factor):
    """Looks at labels."""

    def apply(self, work: Work) -> Change:
        labels = work.data.rows(work.rows)[1]
        work.quantized.get_submodule("out").bias.add_(0 if labels is None else labels.double().mean())  # type: ignore[operator]
        return Change(("out",))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (Silent(), "it says what it changed"),
        (Meddling(), "the float network stays as it is"),
        (Peeking(), "whatever their labels"),
    ],
)
def test_parts_that_break_a_rule(wrong: Calibration, rule: str) -> None:
    with pytest.raises(ConformanceError, match=rule):
        check_calibration(wrong)


def test_what_is_known_of_the_float_network_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And copies that are calibrated beside it come out as those that have it to themselves."""
    found = world("net")
    copies = [found.quantized(bits) for bits in (2, 3, 5)]
    alone = [found.calibrate(quantized, samples=66) for quantized in copies]
    beside = refer(found.network, Dataset(found.x), samples=66)
    first = found.calibrate(copies[0], samples=66, reference=beside)
    floats = beside.network.copy  # what steps run of the float network
    ran: list[int] = []

    def copied() -> Any:
        ran.append(0)
        return floats()

    monkeypatch.setattr(beside.network, "copy", copied)
    monkeypatch.setattr(beside.network, "logits", lambda _: ran.append(1))
    monkeypatch.setattr("impq_opt.calibrate.api.trace", lambda *_: ran.append(2))
    others = [found.calibrate(quantized, samples=66, reference=beside) for quantized in copies[1:]]
    assert set(ran) <= {0} and len(ran) == len(others)  # the graph of a network with its own modules, and no more
    for done, own in zip([first, *others], alone, strict=True):
        assert same(state(done.network), state(own.network)) and done.after.to_dict() == own.after.to_dict()
        assert [step.outcome for step in done.steps] == [step.outcome for step in own.steps]
