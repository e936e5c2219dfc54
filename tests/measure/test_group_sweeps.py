"""Metrics of one group quantized at a time, against the whole network run again for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import known, table_of
from measure_world import Attention, Branches, Norms, Odd, data_of, digits_network, noise, seeded, tensor_of
from torch import nn
from torch.nn import functional

from impq_opt.data import load_data
from impq_opt.data.batch import prepare
from impq_opt.errors import DataError, OptionError
from impq_opt.groups.interactions import Factors
from impq_opt.measure import Estimator, Grouping, Sampling, measure, survey_of, trace
from impq_opt.measure.metrics import load_metric
from impq_opt.measure.metrics.kl import divergence
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import rounded_activation, rounded_weight
from impq_opt.measure.sweeps import Sweep

NETWORKS: dict[str, tuple[type[nn.Module], Any]] = {
    "odd": (Odd, lambda: noise(5, 3, 15, 12)),
    "branches": (Branches, lambda: noise(5, 1, 8, 8)),
    "norms": (Norms, lambda: noise(5, 2, 9, 8)),
    "attention": (Attention, lambda: torch.randint(0, 11, (5, 6), generator=torch.Generator().manual_seed(0))),
}


def chunk_of(x: Any, labels: Any = None) -> Chunk:
    """Return samples that count alike, prepared as the loop does."""
    weights = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    return Chunk(prepare(x, torch.device("cpu")), labels, weights, torch.Generator())


def by_definition(survey: Any, x: Any) -> Any:
    """Return the logits (G, K, n, classes), each of a whole pass, and those of the float network."""
    network, rows = survey.network, []
    for site in network.weights:
        weight = network.weight_tensor(site)
        ends = np.cumsum(survey.grouping.sizes(site)).tolist()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            inside = (torch.arange(weight.numel()) >= start) & (torch.arange(weight.numel()) < end)
            inside = inside.reshape(weight.shape)
            changed = [torch.where(inside, rounded_weight(survey, site, bits), weight) for bits in survey.bits]
            nodes = network.weight_node(site)
            rows.append(torch.stack([network.run(x, tensors=dict.fromkeys(nodes, one)) for one in changed]))
    for site in network.activations:
        watch = frozenset([site.node])
        each = [
            network.run(x, lambda _, out, __, s=site, b=bits: rounded_activation(survey, s, out, b), watch=watch)
            for bits in survey.bits
        ]
        rows.append(torch.stack(each))
    return torch.stack(rows).double(), network.run(x).double()


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")  # torch's own, of an odd layer
@pytest.mark.parametrize(
    ("name", "groups"), [("odd", "layer"), ("branches", "kernel"), ("norms", "block"), ("attention", "layer")]
)
@torch.no_grad()
def test_every_group_is_as_if_the_whole_network_ran_again(name: Any, groups: Any) -> None:
    kind, samples = NETWORKS[name]
    network, x = seeded(kind), samples()
    labels = torch.arange(len(x)) % 3
    survey = survey_of(
        network,
        data_of(x),
        groups=Grouping(groups, 50),
        grid="symmetric",
        bits=(2, 3.5, 8),
        estimator=Estimator(batch=2),
    )
    changed, logits = by_definition(survey, x)
    log_p, log_q = logits.log_softmax(1), changed.log_softmax(3)
    shifts = changed - logits
    losses = [functional.cross_entropy(z, labels) for z in changed.flatten(0, 1)]
    expected = {
        "kl": (log_p.exp() * (log_p - log_q)).sum(3).mean(2),
        "output-error": shifts.var(3, correction=0).mean(2),
        "loss-delta": torch.stack(losses).reshape(changed.shape[:2]) - functional.cross_entropy(logits, labels),
    }
    for metric, wanted in expected.items():
        assert (wanted[:, 0] != 0).double().mean() > 0.8, "nothing to compare"
        found = load_metric(metric).chunk(survey, chunk_of(x, labels))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))


@torch.no_grad()
def test_after_statistics_a_group_is_as_if_norms_took_those_of_the_samples() -> None:
    """Where running statistics are those of the samples, the moved ones are those that training mode normalizes by."""
    network, x = seeded(Norms), noise(8, 2, 9, 8)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.register_forward_pre_hook(_take_statistics)
    before = network.train()(x)
    for module in network.modules():
        module._forward_pre_hooks.clear()
    torch.testing.assert_close(network.eval()(x), before, rtol=1e-4, atol=1e-4)
    survey = survey_of(network, data_of(x), groups="layer", bits=(2, 4, 14), weights_only=True)
    found = load_metric("kl:after=statistics").chunk(survey, chunk_of(x))[: survey.weight_groups]
    plain = load_metric("kl").chunk(survey, chunk_of(x))[: survey.weight_groups]
    logits = survey.network.run(x).double()
    for row, site in enumerate(survey.network.weights):
        weight = network.get_parameter(site.parameter)
        kept, state = weight.clone(), {name: tensor.clone() for name, tensor in network.state_dict().items()}
        for column, bits in enumerate(survey.bits):
            weight.copy_(rounded_weight(survey, site, bits))
            changed = network.train()(x).double()
            wanted = float(divergence(logits.softmax(1), changed - logits).mean())
            assert found[row, column] == pytest.approx(wanted, rel=0.02, abs=1e-9), (site.name, bits)
            weight.copy_(kept)
            network.load_state_dict(state)
    assert (np.abs(found - plain) > 0.05 * plain)[:-1, 0].any()  # there is something to tell
    assert (found[:, 2] < 1e-4 * found[:, 0]).all()  # what changes nothing moves nothing
    with pytest.raises(OptionError, match=r"after: .*'gptq'.*statistics is known"):
        load_metric("kl:after=gptq")


def _take_statistics(norm: Any, given: Any) -> None:
    """Give a batch-norm the mean and the variance, not made larger for few samples, of what it is given."""
    dims = [0, *range(2, given[0].ndim)]
    norm.running_var, norm.running_mean = torch.var_mean(given[0], dims, correction=0)
    norm.momentum = 0.0


def test_samples_go_through_together_and_statistics_are_estimated_on_a_batch() -> None:
    data = data_of(noise(64, 1, 8, 8))
    options: dict[str, Any] = {"bits": (2, 4), "weights_only": True, "sampling": Sampling(samples=64)}
    chunks = {
        metric: measure(seeded(Branches), data, metric=metric, **options).provenance["chunks"]
        for metric in ("kl", "kl:after=statistics")
    }
    assert chunks == {"kl": 8, "kl:after=statistics": 2}


@torch.no_grad()
def test_what_groups_do_together_is_the_product_of_their_shifts() -> None:
    network, x = seeded(Branches), noise(8, 1, 8, 8)
    options: dict[str, Any] = {"bits": (2, 8), "grid": "symmetric"}
    problem = measure(
        network, data_of(x), metric="kl", interactions=True, sampling=Sampling(chunk=8), residual="tie", **options
    )
    assert isinstance(problem.interactions, Factors)
    vectors = problem.interactions.values
    products = np.einsum("gkr,hlr->gkhl", vectors, vectors)
    np.testing.assert_allclose(np.einsum("gkgk->gk", products), table_of(problem).values, rtol=1e-6)
    changed, logits = by_definition(survey_of(network, data_of(x), **options), x)
    chances = logits.softmax(1)
    shifts = changed - logits
    shifts -= (chances * shifts).sum(3, keepdim=True)
    wanted = torch.einsum("gkni,hlni,ni->gkhl", shifts, shifts, chances).numpy() / 2 / len(x)
    squares = np.einsum("gkgk->gk", wanted)
    wanted /= np.sqrt(squares[:, :, None, None] * squares)
    lengths = np.sqrt(table_of(problem).values)
    np.testing.assert_allclose(products / lengths[:, :, None, None] / lengths, wanted, atol=2e-3)
    assert vectors.shape[2] <= 16 < 2 * len(problem)  # 8 samples have no more directions
    assert problem.interactions.stderr is None


def test_interactions_have_the_errors_that_were_seen() -> None:
    data = data_of(noise(64, 1, 8, 8))
    options: dict[str, Any] = {"metric": "kl", "bits": (2, 4), "weights_only": True, "interactions": True}
    several = [
        measure(seeded(Branches), data, sampling=Sampling(samples=32, chunk=2, seed=k), **options) for k in (0, 1)
    ]
    first, second = (problem.interactions for problem in several)
    assert first is not None
    assert second is not None
    for column in (0, 1):
        choice = np.full(len(several[0]), column)
        totals = first.total(choice), second.total(choice)
        errors = known(first.error(choice)), known(second.error(choice))
        assert abs(float(totals[0] - totals[1])) < 4 * math.hypot(*errors)
        assert all(0 < error < 2 * abs(float(total)) for error, total in zip(errors, totals, strict=True))


def test_interactions_are_refused_where_they_are_not_measured() -> None:
    data = data_of(noise(4, 1, 8, 8))
    with pytest.raises(OptionError, match="unknown option of metric 'impq'"):
        measure(seeded(Branches), data, interactions=True)
    survey = survey_of(seeded(Branches), data, groups=Grouping("block", 1), bits=range(1, 17))
    with pytest.raises(OptionError, match="at most 2048"):
        load_metric("kl", interactions=True).columns(survey)


def test_a_divergence_is_told_however_small_or_large_it_is() -> None:
    chances = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    shift = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    mean = (chances * shift).sum()
    curvature = float((chances * (shift - mean) ** 2).sum())
    for size in (1e-3, 1e-6, 1e-9):
        found = float(divergence(chances, size * shift + 1e3))  # what all logits have in common says nothing
        assert found == pytest.approx(size**2 * curvature / 2, rel=1e-3 if size > 1e-9 else 0.1)
    far = torch.tensor([[0.0, 900.0, -900.0]], dtype=torch.float64)
    wanted = functional.kl_div((chances.log() + far).log_softmax(1), chances, reduction="sum")
    assert float(divergence(chances, far)) == pytest.approx(float(wanted), rel=1e-9)
    masked = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    assert float(divergence(masked, torch.tensor([[3.0, 0.0, 0.0]]).double())) == pytest.approx(
        math.log((math.exp(3) + 1) / 2) - 1.5
    )


@torch.no_grad()
def test_damages_of_many_bits_are_no_noise() -> None:
    """A divergence falls 4-fold with each bit: where it still does up to 14 of them, arithmetic is out of it."""
    survey = survey_of(seeded(Branches), data_of(noise(5, 1, 8, 8)), bits=(8, 14), weights_only=True)
    many, few = load_metric("kl").chunk(survey, chunk_of(noise(32, 1, 8, 8))).sum(0)[::-1]
    assert 4**6 / 8 < few / many < 4**6 * 8


def test_weights_alone_are_looked_at_where_activations_stay() -> None:
    data = data_of(noise(6, 1, 8, 8))
    both, alone = (
        measure(seeded(Branches), data, metric="kl", bits=(2, 4), weights_only=only) for only in (False, True)
    )
    np.testing.assert_array_equal(table_of(alone).values, table_of(both).values[both.weights()])
    survey = survey_of(seeded(Branches), data, bits=(2, 4), weights_only=True)
    assert not load_metric("kl").chunk(survey, chunk_of(data.inputs))[survey.weight_groups :].any()
    assert "zero_damages" not in alone.provenance


def test_a_loss_that_falls_counts_from_the_smallest_of_its_group() -> None:
    labels = known(load_data("digits").labels)[:30]
    wrong = data_of(
        tensor_of(load_data("digits"))[:30], (labels + 1) % 10
    )  # noise makes the network less sure of itself
    problem = measure(digits_network(), wrong, metric="loss-delta", bits=(2, 3, 8))
    values = table_of(problem).values
    assert problem.provenance["negative_scores"]["groups"] > 0
    assert problem.provenance["damage_offset"] < 0
    assert (values.min(axis=1) >= 0).all()
    assert (values.min(axis=1) == 0).sum() >= problem.provenance["negative_scores"]["groups"]
    assert (values.max(axis=1) > 0).all()  # a fall says as much as a rise
    assert any("was taken off" in line for line in problem.notes())


class Cast(nn.Module):
    """A region of autocast in the middle, with weights inside and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inside, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.first(x).relu()
        with torch.autocast("cpu", torch.bfloat16):
            x = self.inside(x).relu()
        return self.out(x.float())


@torch.no_grad()
def test_regions_of_autocast_are_left_and_entered_again() -> None:
    network, x = seeded(Cast), noise(6, 6)
    survey = survey_of(network, data_of(x), bits=(2, 4))
    changed, logits = by_definition(survey, x)
    found = load_metric("output-error").chunk(survey, chunk_of(x))
    np.testing.assert_allclose(found, (changed - logits).var(3, correction=0).mean(2), rtol=1e-5, atol=1e-9)
    assert not torch.is_autocast_enabled("cpu")


def test_logits_that_are_no_numbers_are_told() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.a(x).abs().log())

    network = seeded(Root)
    with torch.no_grad():
        network.a.bias.zero_()
        network.a.weight.copy_(torch.tensor([1.0, 0.3, 0.3, 0.3]).repeat(4, 1))
        network.out.weight.fill_(1.0)
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    survey = survey_of(network, data_of(x), grid="symmetric", bits=(2, 8), weights_only=True)
    with pytest.raises(DataError, match=r"a: .*logits are no numbers any more.*2 bits"):
        load_metric("kl").chunk(survey, chunk_of(x[:1]))


def test_an_interrupted_sweep_resumes(tmp_path: Path) -> None:
    network, data = seeded(Branches), data_of(noise(24, 1, 8, 8))
    options: dict[str, Any] = {"metric": "kl", "bits": (2, 4), "sampling": Sampling(chunk=6), "groups": "kernel"}
    whole = measure(network, data, **options)

    def stop(done: Any, total: Any, error: Any) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        measure(network, data, checkpoint=tmp_path / "state", progress=stop, **options)
    again = measure(network, data, checkpoint=tmp_path / "state", **options)
    assert again.digest == whole.digest


def test_much_work_is_announced() -> None:
    survey = survey_of(seeded(Branches), data_of(noise(4, 1, 8, 8)), groups="slice", bits=(2, 4), weights_only=True)
    metric = load_metric("kl")
    assert isinstance(metric, Sweep)
    assert metric.announced(survey, 1000) == ""
    assert metric.announced(survey, 10_000).startswith(
        f"{survey.weight_groups} groups at 2 precisions on 10,000 samples"
    )


def test_a_walk_holds_no_more_than_is_read_later() -> None:
    network = trace(seeded(Branches), noise(2, 1, 8, 8))
    walk = network.walk(noise(2, 1, 8, 8))
    walk.stop_before(walk.place(network.weights[-1].uses[0].node))
    held = [value for value in walk._runner.env.values() if isinstance(value, torch.Tensor)]
    inputs = [value for value in held if not any(value is tensor for tensor in network.tensors.values())]
    assert len(inputs) == 1
