"""The measuring loop: standard errors, stopping, resuming, sharing among processes, conceding; and degenerate input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import known, table_of
from measure_world import Attention, Branches, Odd, data_of, digits_network, noise, seeded, tensor_of
from torch import nn

from impq_opt import solve
from impq_opt.cli import run
from impq_opt.data import Dataset, load_data
from impq_opt.errors import DataError, FileError, OptionError, UnsupportedError
from impq_opt.files import load_problem, save_problem
from impq_opt.groups.damage import PowerLaw
from impq_opt.measure import METRICS, Estimator, Sampling, measure, measure_each, trace
from impq_opt.measure.metrics import load_metric
from impq_opt.measure.pool import look_at, take
from impq_opt.measure.replicates import Replicates


class StoppedError(Exception):
    pass


def few(count: int = 200) -> Any:
    return data_of(tensor_of(load_data("digits"))[:count], known(load_data("digits").labels)[:count])


def test_an_interrupted_measurement_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    sampling = Sampling(chunk=20)
    options: dict[str, Any] = {"groups": "kernel", "sampling": sampling, "estimator": Estimator("importance", draws=4)}
    whole = measure(digits_network(), few(), **options)
    state = tmp_path / "state"

    def stop(done: Any, total: Any, error: Any) -> None:
        if done == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        measure(digits_network(), few(), checkpoint=state, progress=stop, **options)
    assert state.exists()
    again = []
    resumed = measure(digits_network(), few(), checkpoint=state, progress=lambda *a: again.append(a[0]), **options)
    assert again == [5, 6, 7, 8, 9, 10]
    assert not state.exists()
    assert resumed.digest == whole.digest
    np.testing.assert_array_equal(resumed.damage.stderr, whole.damage.stderr)


def test_the_state_of_another_measurement_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"

    def stop(done: Any, total: Any, error: Any) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        measure(digits_network(), few(), checkpoint=state, progress=stop)
    with pytest.raises(FileError, match="another measurement"):
        measure(digits_network(), few(), checkpoint=state, sampling=Sampling(seed=1))
    state.write_bytes(b"not a state")
    with pytest.raises(FileError, match="not the state"):
        measure(digits_network(), few(), checkpoint=state)


def test_it_stops_when_the_error_is_small_enough() -> None:
    loose = measure(digits_network(), few(400), sampling=Sampling(relative_error=0.2))
    tight = measure(digits_network(), few(400), sampling=Sampling(relative_error=0.05))
    assert loose.provenance["chunks"] < tight.provenance["chunks"] < 34
    assert tight.provenance["relative_error"]["p95"] <= 0.05


def test_one_replicate_has_no_standard_error_and_an_error_out_of_reach_is_told(tmp_path: Path) -> None:
    one = measure(digits_network(), few(20), estimator="signs", sampling=Sampling(chunk=20))
    assert one.damage.stderr is None
    save_problem(one, tmp_path / "p.toml")
    assert load_problem(tmp_path / "p.toml").damage.stderr is None
    far = measure(digits_network(), few(40), estimator="signs", sampling=Sampling(relative_error=1e-3))
    assert far.provenance["relative_error"]["reached"] > 1e-3 == far.provenance["relative_error"]["wanted"]


def _law(mean: Any, stderr: Any) -> Any:
    return PowerLaw(mean[:, 0], stderr[:, 0])


def test_standard_errors_are_those_of_a_mean_of_independent_chunks() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=(50, 3, 1))
    equal = Replicates((3, 1), _law)
    for value in values:
        equal.add(value, 7)
    np.testing.assert_allclose(equal.mean, values.mean(0))
    np.testing.assert_allclose(equal.stderr, values.std(0, ddof=1) / np.sqrt(50))
    unequal = Replicates((3, 1), _law)
    for place, value in enumerate(values):
        unequal.add(value, 1 + place % 3)
    weights = np.array([1 + place % 3 for place in range(50)])
    np.testing.assert_allclose(unequal.mean[:, 0], np.average(values[:, :, 0], axis=0, weights=weights))


SHARED = """
import sys
import torch._dynamo  # and torch: once, for all
from processes import in_processes
from impq_opt.cli import run

raise SystemExit(in_processes(3, lambda: run(sys.argv[1:])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_processes_share_the_work_and_find_the_same_numbers(tmp_path: Path) -> None:
    paths = [Path(__file__).parents[2], Path(__file__).parents[1] / "worlds"]
    weights = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, weights)
    options = "--data digits --groups kernel --samples 70 --concede 0.02 --threads 1 --estimator importance:4"
    command = ["measure", "small-cnn", "--weights", str(weights), *options.split(), "-o"]
    assert run([*command, str(tmp_path / "one.toml")]) == 0
    shared = [sys.executable, "-c", SHARED, *command, str(tmp_path / "three.toml")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(shared, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_problem(tmp_path / "one.toml").digest == load_problem(tmp_path / "three.toml").digest


def test_conceding_leaves_out_the_smallest_margins_and_keeps_the_bound() -> None:
    network, data = digits_network(), few(300)
    traced = trace(network, data.inputs[:2])
    pool = look_at(traced, data, torch.arange(300), concede=0.1)
    smallest = network(data.inputs).detach().topk(2, dim=1).values
    margin = smallest[:, 0] - smallest[:, 1]
    assert int(pool.conceded.sum()) == 30
    assert float(margin[pool.conceded].max()) <= float(margin[~pool.conceded].min())
    options: dict[str, Any] = {"estimator": "exact", "residual": "accumulate"}
    all_of_them = measure(network, data, sampling=Sampling(), **options).damage.sensitivity
    kept = measure(network, data, sampling=Sampling(concede=0.1), **options).damage.sensitivity
    rest = data_of(data.inputs[~pool.conceded])
    # Ranges come from the same batch-norms and weights, so the kept sum is that of the kept samples, over all.
    alone = measure(network, rest, sampling=Sampling(), **options).damage.sensitivity
    np.testing.assert_allclose(kept, alone * 270 / 300, rtol=1e-4)
    assert (kept < all_of_them).all()


def test_a_look_in_bfloat16_gives_up_the_same_samples_and_weighs_the_others_nearly_alike() -> None:
    data = few(1500)
    traced = trace(digits_network(), data.inputs[:2])
    full, quick = (look_at(traced, data, torch.arange(len(data)), concede=0.02, bf16=b) for b in (False, True))
    assert torch.equal(full.conceded, quick.conceded)
    assert not torch.equal(full.tail, quick.tail)
    kept = full.kept
    assert float((quick.tail[kept] / full.tail[kept]).log().abs().max()) < 1.0
    assert full.ties == quick.ties == 0


def test_what_is_tied_in_bfloat16_alone_is_looked_at_again() -> None:
    network: Any = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(3, 4))
        network[1].bias.zero_()
    x = torch.cat([noise(300, 4) * 20, torch.tensor([[7.001, 7.0, 1.0, 0.0], [5.0, 5.0, 1.0, 0.0]])])
    pool = look_at(trace(network, x[:2]), data_of(x), torch.arange(len(x)), bf16=True)
    assert float(pool.tail[300]) == pytest.approx(1e6, rel=0.01)
    assert pool.ties == 1


def test_each_sample_is_taken_with_its_chance() -> None:
    data = few(120)
    pool = look_at(trace(digits_network(), data.inputs[:2]), data, torch.arange(120), concede=0.05)
    chance = pool.chances(32)
    assert float(chance.sum()) == pytest.approx(32)
    assert chance[pool.kept].min() > 0
    assert not chance[pool.conceded].any()
    taken = torch.stack([torch.zeros(120).index_fill_(0, take(chance, _seeded(s)), 1) for s in range(1000)])
    assert ((taken.mean(0) - chance).abs() <= 4.5 * (chance * (1 - chance) / 1000).sqrt()).all()
    assert set(taken.sum(1).tolist()) <= {31, 32, 33}
    assert torch.equal(pool.chances(500), (~pool.conceded).double())


def _seeded(seed: Any) -> Any:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_fills_a_table_that_solves_and_survives_a_file(metric: Any, tmp_path: Path) -> None:
    problem = measure(digits_network(), few(48), metric=metric, bits=(2, 4, 8), sampling=Sampling())
    assert problem.metric == metric
    assert problem.damage_unit
    path = tmp_path / "problem.toml"
    save_problem(problem, path)
    again = load_problem(path)
    assert again.digest == problem.digest
    np.testing.assert_array_equal(again.damage.stderr, problem.damage.stderr)
    choice = np.full(len(problem), 1)
    damage = problem.damage.chosen(problem.candidates, choice).sum()
    if damage > 0:
        assert solve(problem, bound=float(damage) * 2).choice is not None


@pytest.mark.parametrize("metric", METRICS)
def test_the_relative_error_is_that_of_the_damages(metric: Any) -> None:
    problem = measure(digits_network(), few(96), metric=metric, bits=(2, 4), sampling=Sampling())
    law = problem.damage
    value = law.sensitivity[:, None] if isinstance(law, PowerLaw) else law.values
    relative = known(law.stderr).reshape(value.shape).sum(1)[value.sum(1) > 0] / value.sum(1)[value.sum(1) > 0]
    assert problem.provenance["relative_error"]["median"] == pytest.approx(np.median(relative))


def test_metrics_that_share_a_trace_measure_what_they_do_alone() -> None:
    sampling = Sampling(samples=60, concede=0.05)
    metrics = ("impq", "loss-delta", "measured-error", "fit")
    together = measure_each(digits_network(), few(), metrics, sampling=sampling, bits=(2, 8))
    for name, problem in together.items():
        alone = measure(digits_network(), few(), metric=name, sampling=sampling, bits=(2, 8))
        assert (alone.digest, dict(alone.provenance)) == (problem.digest, dict(problem.provenance))
        assert problem.conceded == (0.05 if load_metric(name).margins else 0)
    unlabelled = Dataset(tensor_of(few()))
    with pytest.raises(DataError, match="no labels, which are needed"):
        measure_each(digits_network(), unlabelled, metrics, sampling=sampling)


def test_metrics_agree_where_they_must() -> None:
    """FIT against autograd on the grid that runs; measured-error nears IMPQ at many bits; tails are at most 1/2."""
    network, data = digits_network(), few(32)
    options: dict[str, Any] = {"sampling": Sampling(), "residual": "accumulate", "estimator": "exact"}
    fit = measure(network, data, metric="fit", bits=(2,), grid="symmetric", **options)
    weight = network.conv2.weight.detach().flatten(1)
    step = weight.abs().amax(1, keepdim=True)  # three levels
    square = ((weight / step).round() * step - weight).square().mean(1)
    total = 0.0
    for x, y in zip(data.inputs, data.labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        (grad,) = torch.autograd.grad(loss, network.conv2.weight)
        random = (grad.flatten(1).square().sum(1) * square).sum()
        total += float(random) / len(data)
    assert table_of(fit).values[fit.names.index_of("conv2"), 0] == pytest.approx(total, rel=1e-3)
    impq = measure(network, data, bits=(8,), **options)
    error = measure(network, data, metric="measured-error", bits=(8,), **options)
    ratio = table_of(error).values[:, 0] / (impq.damage.sensitivity * 4.0**-8)
    rows = [impq.names.index_of(name) for name in ("conv2", "conv3", "fc")]  # of enough weights for a mean
    assert np.abs(ratio[rows] - 1).max() < 0.1
    gaussian = table_of(measure(network, data, metric="gaussian", bits=(1, 4), **options)).values
    assert (gaussian <= 4.5).all()
    assert (gaussian[:, 1] <= gaussian[:, 0]).all()


def test_loss_delta_is_the_rise_of_the_loss() -> None:
    network, data = digits_network(), few(64)
    problem = measure(network, data, metric="loss-delta", bits=(1,), residual="accumulate", sampling=Sampling(chunk=64))
    from impq_opt.quantize import WeightQuantizer

    before = network.fc.weight.detach().clone()
    base = float(nn.functional.cross_entropy(network(data.inputs), data.labels).detach())
    try:
        with torch.no_grad():
            network.fc.weight.copy_(WeightQuantizer(before.shape, [1], [before.numel()])(before))
        after = float(nn.functional.cross_entropy(network(data.inputs), data.labels).detach())
    finally:
        with torch.no_grad():
            network.fc.weight.copy_(before)
    row = problem.names.index_of("fc")
    assert table_of(problem).values[row, 0] == pytest.approx(max(after - base, 0), abs=1e-5)


def test_residual_summands_are_tied_and_concatenations_are_not() -> None:
    network, x = seeded(Branches), noise(6, 1, 8, 8)
    tied = measure(network, data_of(x), sampling=Sampling())
    names = [[tied.names[g] for g in tie] for tie in tied.ties]
    assert names == [["relu", "left.output"]]
    plain = measure(network, data_of(x), residual="accumulate", sampling=Sampling())
    assert plain.ties == ()
    after = plain.names.index_of("after")
    assert plain.also_reads is not None
    further = plain.also_reads[plain.also_reads[:, 0] == after]
    assert len(further) == 1
    assert known(plain.macs)[after] + further[0, 2] == 8 * 4 * 6 * 6


def test_a_shared_weight_is_one_group() -> None:
    network = seeded(Odd)
    traced = trace(network, noise(2, 3, 15, 12))
    names = [site.name for site in traced.weights]
    assert names.count("shared") == 1
    assert len(next(site for site in traced.weights if site.name == "shared").uses) == 2


def test_bf16_reports_its_bias() -> None:
    problem = measure(digits_network(), few(64), bf16=True, sampling=Sampling())
    bias = problem.provenance["bf16_bias"]
    assert 0 < bias["largest"] < 0.5


def test_the_network_is_left_as_it_was() -> None:
    network = seeded(Attention).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    measure(network, data_of(torch.randint(0, 11, (8, 5))), sampling=Sampling())
    assert network.training
    assert network.layer.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_dropout_and_batch_norm_in_train_mode_do_not_matter() -> None:
    network = digits_network()
    quiet = measure(network, few(32), sampling=Sampling()).digest
    network.train()
    try:
        assert measure(network, few(32), sampling=Sampling()).digest == quiet
    finally:
        network.eval()


# -- degenerate input --------------------------------------------------------------------------------------------


class Regression(nn.Module):
    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.a = nn.Linear(4, outputs)

    def forward(self, x: Any) -> Any:
        return self.a(x).squeeze(-1)


def linear(outputs: int = 3) -> Any:
    torch.manual_seed(0)
    return nn.Linear(4, outputs).eval()


def test_what_is_not_a_classifier_is_told() -> None:
    with pytest.raises(DataError, match="not a classifier"):
        measure(Regression(1), data_of(noise(8, 4)))
    with pytest.raises(DataError, match="two classes"):
        measure(linear(1), data_of(noise(8, 4)))


def test_a_network_that_cannot_be_traced_is_told() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.a(x) if float(x.sum()) > 0 else self.a(-x)

    with pytest.raises(DataError, match="so it is no one graph"):
        measure(Branching(), data_of(noise(8, 4)))


def test_samples_that_do_not_fit_the_network_are_told() -> None:
    with pytest.raises(DataError, match=r"does not take samples of shape \(5,\)"):
        measure(linear(), data_of(noise(8, 5)))


def test_a_network_without_weights_is_told() -> None:
    class Pool(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

    with pytest.raises(DataError, match="has no weight of two or more dimensions"):
        measure(Pool(), data_of(noise(8, 4)))


def test_equal_logits_are_told() -> None:
    network = linear()
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    with pytest.raises(DataError, match="logits of every sample are equal"):
        measure(network, data_of(noise(8, 4)))
    with pytest.raises(DataError, match="no group has any effect"):
        measure(network, data_of(noise(8, 4)), estimator="signs")


@pytest.mark.parametrize("estimator", ["signs", "importance", "exact"])
def test_logits_that_are_not_numbers_are_told(estimator: str) -> None:
    x = noise(8, 4)
    x[3, 2] = torch.nan
    with pytest.raises(DataError, match="finite"):
        measure(linear(), data_of(x), estimator=estimator)


def test_an_empty_loader_is_told() -> None:
    with pytest.raises(DataError, match="no samples"):
        measure(linear(), [])
    with pytest.raises(DataError, match="no samples"):
        Dataset(torch.empty(0, 4))
    with pytest.raises(DataError, match="batch must be a tensor"):
        measure(linear(), [3])


def test_any_iterable_of_batches_will_do() -> None:
    batches = [noise(5, 4, seed=s) for s in range(4)]
    whole = measure(linear(), data_of(torch.cat(batches)), sampling=Sampling())
    assert measure(linear(), iter(batches), sampling=Sampling()).digest == whole.digest
    pairs = ((x, torch.zeros(len(x), dtype=torch.long)) for x in batches)
    assert measure(linear(), pairs, metric="fit", sampling=Sampling()).metric == "fit"
    endless = iter(lambda: noise(5, 4), None)
    assert measure(linear(), endless, sampling=Sampling(samples=12)).provenance["samples"] == 12


def test_dead_groups_have_no_damage_and_solve() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.used(x).relu() + 0 * self.unused(x))

    problem = measure(seeded(Dead), data_of(noise(16, 4)), residual="accumulate", sampling=Sampling())
    assert problem.damage.sensitivity[problem.names.index_of("unused")] == 0
    allocation = solve(problem, bound=1.0)
    assert allocation.bits[problem.names.index_of("unused")] == 1


def test_labels_are_asked_for() -> None:
    with pytest.raises(DataError, match="no labels"):
        measure(linear(), data_of(noise(8, 4)), metric="fit")


def test_what_a_metric_cannot_do_is_told() -> None:
    with pytest.raises(UnsupportedError, match="per layer or kernel"):
        measure(linear(), data_of(noise(8, 4)), metric="gaussian", groups="slice")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Sampling(relative_error=0), "relative-error"),
        (lambda: Sampling(concede=1), "concede"),
        (lambda: Sampling(quantile=0), "quantile"),
        (lambda: Sampling(samples=0), "samples"),
        (lambda: Sampling(look="float16"), "look"),
        (lambda: Estimator("sings"), "did you mean 'signs'"),
        (lambda: Estimator(draws=0), "draws"),
        (lambda: measure(linear(), data_of(noise(8, 4)), metric="impk"), "impq"),
        (lambda: measure(linear(), data_of(noise(8, 4)), groups="row"), "grouping"),
        (lambda: measure(linear(), data_of(noise(8, 4)), residual="x"), "treatment"),
    ],
)
def test_bad_options_are_told(call: Callable[..., Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        call()


def test_replace_keeps_the_measured_law() -> None:
    problem = measure(linear(), data_of(noise(8, 4)), sampling=Sampling())
    assert isinstance(replace(problem, provenance={}).damage, PowerLaw)
    assert json.dumps(dict(problem.provenance))
