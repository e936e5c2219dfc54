"""Sensitivities against the definition, written out: one backward pass per sample and class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from known import known
from measure_world import (
    Attention,
    Branches,
    Norms,
    Odd,
    Volume,
    by_definition,
    data_of,
    digits_network,
    noise,
    seeded,
    tensor_of,
)
from torch import nn

from impq_opt.data import load_data
from impq_opt.measure import Estimator, Grouping, Sampling, contraction, measure, trace
from impq_opt.measure.estimators import Squares, propagate
from impq_opt.measure.margins import margins, one_by_one, random_signs
from impq_opt.measure.taps import Taps


def exact(network: Any, x: Any, **options: Any) -> Any:
    """Measure with the exact estimator, so that nothing is random."""
    return measure(network, data_of(x), estimator="exact", residual="accumulate", sampling=Sampling(), **options)


CASES = {
    "convolutions": (Odd, (4, 3, 15, 12)),
    "volume": (Volume, (3, 2, 4, 5, 4)),
    "branches": (Branches, (4, 1, 8, 8)),
    "norms": (Norms, (4, 2, 9, 8)),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")  # torch's own, of an odd layer
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_layer_agrees_with_the_definition(case: Any, channels_last: bool) -> None:
    kind, shape = CASES[case]
    network, x = seeded(kind), noise(*shape)
    truth = by_definition(network, x, fine=True)
    traced = trace(network, x, residual="accumulate")
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    for fine in (False, True):
        found = Estimator("exact").estimate(traced, x, torch.full((len(x),), 1 / len(x)), torch.Generator(), fine=fine)
        for site in traced.weights:
            wanted = truth[site.parameter] if fine else truth[site.parameter].sum(1)
            assert wanted.max() > 0, "nothing to compare"
            torch.testing.assert_close(found.weights[site.name], wanted, rtol=2e-3, atol=1e-5 * float(wanted.max()))


def test_batch_norms_are_folded_where_the_layer_is_theirs_alone() -> None:
    network, x = seeded(Norms), noise(4, 2, 9, 8)
    traced = trace(network, x)
    layers = [site.name for site in traced.weights for use in site.uses if use.node in traced.folds]
    assert layers == ["a", "b", "shared", "shared", "line", "full"]
    expected = network(x)
    for tensors in (None, traced.tensors):
        torch.testing.assert_close(traced.run(x, tensors=tensors, folds=traced.folds), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(traced.logits(x), expected, rtol=1e-4, atol=1e-5)
    traced.to(torch.device("cpu"))
    torch.testing.assert_close(traced.run(x), expected)


def test_every_layer_agrees_on_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, kernels are unfolded; here, every sample is a group of one convolution."""
    monkeypatch.setattr(contraction, "_is_grouped", lambda *_: False)
    for kind, shape in (CASES["convolutions"], CASES["volume"], CASES["norms"]):
        network, x = seeded(kind), noise(*shape)
        truth = by_definition(network, x, fine=True)
        traced = trace(network, x, residual="accumulate")
        for fine in (False, True):
            found = Estimator("exact").estimate(
                traced, x, torch.full((len(x),), 1 / len(x)), torch.Generator(), fine=fine
            )
            for site in traced.weights:
                wanted = truth[site.parameter] if fine else truth[site.parameter].sum(1)
                assert wanted.max() > 0, "nothing to compare"
                torch.testing.assert_close(found.weights[site.name], wanted, rtol=2e-3, atol=1e-5 * float(wanted.max()))


@pytest.mark.parametrize("groups", ["layer", "kernel", "slice", "block"])
def test_groups_fold_the_range_of_each_output_kernel(groups: str) -> None:
    network, x = digits_network(), tensor_of(load_data("digits"))[:12]
    truth = by_definition(network, x, fine=True)
    grouping = Grouping(groups, 7)
    problem = exact(network, x, groups=grouping)
    for name in ("conv2", "fc"):
        weight = network.get_submodule(name).weight.detach()
        span = 2 * weight.flatten(1).abs().amax(1).double()
        folded = truth[f"{name}.weight"] * span[:, None] ** 2 / 12
        if groups == "layer":
            wanted = [float(folded.sum())]
        elif groups == "kernel":
            wanted = folded.sum(1).tolist()
        elif groups == "slice":
            wanted = folded.reshape(weight.shape[0] * weight.shape[1], -1).sum(1).tolist()
        else:
            wanted = [float(part.sum()) for part in folded.flatten().split(7)]
        rows = problem.names.select(name)
        np.testing.assert_allclose(problem.damage.sensitivity[rows], wanted, rtol=2e-3, atol=1e-6 * max(wanted))
        assert problem.sizes[rows].sum() == weight.numel()
    if groups == "kernel":
        rows = problem.names.select("conv2")
        np.testing.assert_allclose(problem.ranges[rows], 2 * network.conv2.weight.detach().flatten(1).abs().amax(1))


def test_activations_agree_with_the_definition() -> None:
    network, x = digits_network(), tensor_of(load_data("digits"))[:10]
    problem = exact(network, x)
    kept: dict[str, Any] = {}
    hook = network.relu2.register_forward_hook(lambda module, args, out: kept.__setitem__("a", out))
    total = 0.0
    for sample in x:
        logits = network(sample[None])[0]
        best = int(logits.argmax())
        for other in set(range(10)) - {best}:
            margin = logits[other] - logits[best]
            (grad,) = torch.autograd.grad(margin, kept["a"], retain_graph=True)
            total += float(grad.double().square().sum() / margin.detach().double() ** 2) / len(x)
    hook.remove()
    row = problem.names.index_of("relu2")
    clip = float((network.bn2.bias + 6 * network.bn2.weight.abs()).detach().max())
    assert problem.ranges[row] == pytest.approx(clip)
    assert problem.damage.sensitivity[row] == pytest.approx(total * clip**2 / 12, rel=1e-3)
    assert problem.sizes[row] == 32 * 4 * 4


def test_sakr_is_half_of_impq() -> None:
    network, x = digits_network(), tensor_of(load_data("digits"))[:8]
    impq, sakr = (exact(network, x, metric=metric).damage.sensitivity for metric in ("impq", "sakr"))
    np.testing.assert_array_equal(sakr, impq / 2)


def test_ranges_change_the_sensitivity_and_not_the_function() -> None:
    """A weight scaled by 4 before a linear unit scaled by 1/4: the range goes up 16-fold, the gradient down 16-fold."""
    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    x = noise(8, 6)
    before = exact(network, x).damage.sensitivity
    with torch.no_grad():
        network[0].weight *= 4
        network[0].bias *= 4
        network[2].weight /= 4
    np.testing.assert_allclose(exact(network, x).damage.sensitivity, before, rtol=1e-3)


def test_transformers_are_measured() -> None:
    network = seeded(Attention)
    tokens = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    truth = by_definition(network, tokens)
    problem = exact(network, tokens)
    assert "layer.linear1" in problem.names.labels
    for label in ("layer.linear1", "layer.self_attn.in_proj_weight", "out"):
        name = label if label.endswith("in_proj_weight") else f"{label}.weight"
        weight = network.get_parameter(name).detach()
        span = 2 * weight.abs().amax(1).double()
        wanted = float((truth[name] * span**2).sum()) / 12
        assert problem.damage.sensitivity[problem.names.index_of(label)] == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("name", ["signs", "batch"])
def test_random_signs_are_unbiased(name: str) -> None:
    """The mean over many independent probes is within 3.5 standard errors of the exact value, on every layer."""
    network, x = digits_network(), tensor_of(load_data("digits"))[:16]
    traced = trace(network, x)
    weights = torch.full((16,), 1 / 16)
    truth = Estimator("exact").estimate(traced, x, weights, torch.Generator(), fine=False)
    probes = [
        Estimator(name, batch=16).estimate(traced, x, weights, torch.Generator().manual_seed(seed), fine=False)
        for seed in range(150)
    ]
    for site in traced.weights:
        found = torch.stack([one.weights[site.name].sum() for one in probes])
        error = float(found.std()) / len(probes) ** 0.5
        assert abs(float(found.mean() - truth.weights[site.name].sum())) < 3.5 * error
        assert error < 0.3 * float(found.mean())


@pytest.mark.parametrize(("chunk", "look"), [(25, "float32"), (100, "bfloat16")])
def test_taking_by_importance_is_unbiased_on_every_layer(chunk: int, look: str) -> None:
    """The mean over many seeds is within 3.5 standard errors of the exact value on the same samples."""
    network, x = digits_network(), tensor_of(load_data("digits"))[:200]
    truth = exact(network, x).damage.sensitivity
    found = []
    for seed in range(10):
        sampling = Sampling(seed=seed, chunk=chunk, look=look)
        problem = measure(
            network, data_of(x), estimator=Estimator("importance", draws=8), residual="accumulate", sampling=sampling
        )
        assert problem.provenance["propagated"] < 200
        found.append(problem.damage.sensitivity)
    error = np.std(found, axis=0, ddof=1) / len(found) ** 0.5
    assert (np.abs(np.mean(found, axis=0) - truth) < 3.5 * error).all()
    assert (error < 0.1 * truth).all()


def test_standard_errors_are_those_of_the_mean_over_the_distribution() -> None:
    """Estimates from other samples of the same distribution spread as their standard errors say."""
    network, digits = digits_network(), load_data("digits")
    generator = torch.Generator().manual_seed(0)
    found, errors = [], []
    for seed in range(12):
        noisy = tensor_of(digits)[torch.randint(0, len(digits), (160,), generator=generator)]
        noisy = noisy + 0.02 * torch.randn(noisy.shape, generator=generator)
        problem = measure(
            network, data_of(noisy), estimator=Estimator(draws=4), residual="accumulate",
            sampling=Sampling(seed=seed, concede=0.05),
        )  # fmt: skip
        found.append(problem.damage.sensitivity)
        errors.append(known(problem.damage.stderr))
    claimed = np.sqrt(np.mean(np.square(errors), axis=0))
    ratio = np.std(found, axis=0, ddof=1) / claimed
    assert 0.7 < np.median(ratio) < 1.3


def test_one_tie_is_left_out_and_the_rest_counts() -> None:
    logits = torch.tensor([[2.0, 2.0, 1.0], [3.0, 1.0, 0.0]])
    found = margins(logits)
    assert found.ties == 1
    torch.testing.assert_close(found.inverse, torch.tensor([[0, 0, 1.0], [0, 1 / 2, 1 / 3]]))
    assert len(list(one_by_one(found))) == 2
    signs = random_signs(found, torch.Generator().manual_seed(0))
    torch.testing.assert_close(signs.sum(1), torch.zeros(2))


def test_backward_passes_can_be_repeated() -> None:
    network = digits_network()
    x = tensor_of(load_data("digits"))[:4]
    taps = Taps(trace(network, x))
    logits = taps.forward(x)
    total = Squares({}, {})
    propagate(taps, logits, iter([torch.eye(10)[:4]] * 2), total)
    once = Squares({}, {})
    propagate(taps, taps.forward(x) * 1.0, iter([torch.eye(10)[:4]]), once)
    for name, value in once.weights.items():
        torch.testing.assert_close(total.weights[name], 2 * value)
