"""Rounding errors that are no noise are found out, and damages rest on what they do; half precision is measured."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measure_world import digits_network
from torch import nn

from impq_opt import files
from impq_opt.data import Dataset, load_data
from impq_opt.errors import DataError, OptionError
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.measure import Estimator, Grouping, Sampling, measure, survey_of
from impq_opt.measure.margins import margins
from impq_opt.measure.premise import examine
from impq_opt.quantize import load_method, pack, quantize, quantized_weights, unpack_into
from impq_opt.validate.reality import Validation

MID, ZERO = load_method("mid-rise"), load_method("zero")


def smooth(*shape: Any, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def on_a_grid(weight: Any, bits: int = 4) -> Any:
    return MID.quantizer(weight.shape, [bits], [weight.numel()])(weight)


SPARSE = smooth(32, 144) * (smooth(32, 144, seed=1).abs() > 1.6)
LIKE_NOISE = {
    "normal": smooth(32, 144),
    "uniform": smooth(32, 144).sigmoid() - 0.5,
    "heavy tails": smooth(32, 144) * smooth(32, 144, seed=1),
    "few weights": smooth(64, 9),
    "dead kernels": torch.cat([smooth(16, 144), torch.zeros(16, 144)]),
    "one sign": smooth(32, 144).abs() + 0.1,
}
UNLIKE_NOISE = {
    "pruned": (SPARSE, "exactly 0"),
    "constant": (torch.full((32, 144), 0.3), "add up in a kernel"),
    "constants of both signs": (torch.full((32, 144), 0.3) * smooth(32, 1).sign(), "add up in a kernel"),
    "two values": (smooth(32, 144).sign() * 0.3, "squared errors"),
    "on the grid of 4 bits": (on_a_grid(smooth(32, 144)), "scale of a kernel"),
    "single weights": (smooth(64, 1), "squared errors are 3 times"),
}


@pytest.mark.parametrize("name", LIKE_NOISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_errors_of_smooth_weights_are_noise(name: Any, dtype: Any) -> None:
    weight = LIKE_NOISE[name].to(dtype).float()
    assert examine(weight, MID, dtype).holds, examine(weight, MID, dtype)


@pytest.mark.parametrize("name", UNLIKE_NOISE)
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e15])
def test_errors_of_weights_that_repeat_are_not(name: Any, size: float) -> None:
    weight, reason = UNLIKE_NOISE[name]
    found = examine(weight * size, MID)
    assert not found.holds
    assert reason in found.reason


def test_a_grid_with_a_zero_makes_small_errors_of_pruned_weights() -> None:
    found = examine(SPARSE, ZERO)
    share = float((SPARSE != 0).double().mean())
    assert found.square == pytest.approx(share, rel=0.3) and found.total < 2


def test_grids_whose_steps_do_not_halve_are_never_taken_for_noise() -> None:
    found = examine(smooth(32, 144), load_method("mid-rise:statistic=normal"))
    assert not found.holds and "do not halve" in found.reason


@functools.cache
def pruned_network() -> Any:
    network = copy.deepcopy(digits_network())
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                weight = part.weight
                weight[weight.abs() < weight.abs().flatten().quantile(0.6)] = 0
    return network.eval()


@functools.cache
def test_kernels_of_zeros_move_where_they_share_the_range_of_others() -> None:
    """Alone they have none, and stay 0 on a grid without a zero, too."""
    weight = LIKE_NOISE["dead kernels"]
    shared = load_method("mid-rise:over=tensor")
    for method, moved in ((MID, False), (shared, True), (ZERO, False), (load_method("zero:over=tensor"), False)):
        value = method.quantizer(weight.shape, [2], [weight.numel()])(weight)
        assert bool(value[16:].any()) is moved
        assert examine(weight, method).holds is not moved
    assert "50% of the weights are exactly 0; errors add up in a kernel" in examine(weight, shared).reason


@pytest.mark.parametrize("pruned", [False, True])
def test_zeros_of_a_factor_of_a_product_are_treated_alike(pruned: bool) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = smooth(64, 16) / 8
            weight[:20] = 0
            self.factor = nn.Parameter(weight * (smooth(64, 16, seed=1) > 0.3) if pruned else weight)
            self.out = nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            return self.out((x.flatten(1) @ self.factor).relu())

    torch.manual_seed(0)
    network = Product().eval()
    data = Dataset(smooth(48, 64, seed=2))
    problem = measure(network, data, groups="kernel", bits=(2, 8), sampling=Sampling(samples=48))
    assert problem.grids == ({"factor": "zero"} if pruned else {})
    assert ("factor" in problem.provenance["noise"].get("errors_as_they_are", ())) is pruned
    worst = problem.damage.at(slice(None), (2.0, 8.0))[:64, 0]
    assert (worst[:20] == 0).all() and (worst[20:] > 0).all() and problem.unmeasured is None
    assert problem.provenance["zero_damages"]["no_effect"]["groups"] == 20
    factor = quantized_weights(quantize(network, problem, np.full(len(problem), 2)))["factor"]
    zeros = factor.latent == 0
    assert not factor.value[zeros].any()
    assert zeros[20:].any() == pruned


def digits(split: str = "train") -> Any:
    return load_data("digits", split)


def damages(problem: Any) -> Any:
    return problem.damage.at(slice(None), problem.candidates.sets[0])


def of(network: Any, **options: Any) -> Any:
    return measure(network, digits(), sampling=Sampling(samples=128, concede=0.02), bits=(2, 4, 8), **options)


def test_dense_networks_keep_their_damages() -> None:
    problem = of(digits_network())
    assert isinstance(problem.damage, PowerLaw) and problem.grids == {}
    assert problem.provenance["noise"] == {
        "premise": "rounding errors are noise of mean 0 and variance step^2/12", "holds": 4, "of": 4
    }  # fmt: skip
    assert np.array_equal(problem.damage.sensitivity, of(digits_network(), assume_noise=True).damage.sensitivity)


@pytest.mark.parametrize("metric", ["impq", "sakr", "gaussian", "measured-error"])
def test_pruned_networks_get_a_grid_with_a_zero_and_damages_of_its_errors(metric: str, tmp_path: Path) -> None:
    network = pruned_network()
    problem = of(network, metric=metric)
    weights = [label for label, row in zip(problem.names.labels, problem.names.offsets, strict=False)
               if problem.weights()[row]]  # fmt: skip
    assert problem.grids == dict.fromkeys(weights, "zero")
    noise = problem.provenance["noise"]
    assert noise["holds"] == 0 and list(noise["errors_as_they_are"]) == weights
    assert isinstance(problem.damage, DamageTable)
    assert np.array_equal(problem.damage.sensitivity, damages(problem).max(axis=1))
    forced = of(network, metric=metric, grid="mid-rise")
    assert forced.grids == {}
    rows = np.flatnonzero(problem.weights())
    assert (damages(problem)[rows, 1] < damages(forced)[rows, 1] / (3 if metric == "impq" else 1)).all()
    activations = np.flatnonzero(~problem.weights())
    assert np.array_equal(damages(problem)[activations], damages(forced)[activations])
    files.save_problem(problem, tmp_path / "p.toml")
    loaded = files.load_problem(tmp_path / "p.toml")
    assert loaded.grids == problem.grids and loaded.provenance["noise"] == noise


class Convolutions(nn.Sequential):
    """With a batch-norm that the layer in front of it takes in."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(48, 4),
        )  # fmt: skip
        layers: list[Any] = list(self)
        with torch.no_grad():
            layers[1].running_var.uniform_(0.5, 2)
            layers[3].weight.fill_(0.2)
            layers[6].weight[torch.rand(4, 48) < 0.7] = 0


class Calls(nn.Module):
    """A weight that a product reads, a transposed convolution, and a linear layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.product, self.spread = nn.Parameter(torch.randn(36, 12) / 6), nn.ConvTranspose1d(3, 4, 3)
        self.shared, self.out = nn.Linear(6, 6), nn.Linear(24, 4)
        with torch.no_grad():
            self.product[torch.rand(36, 12) < 0.7] = 0
            self.spread.weight.fill_(0.2)
            self.shared.weight[torch.rand(6, 6) < 0.7] = 0

    def forward(self, x: Any) -> Any:
        x = torch.relu(x.flatten(1) @ self.product).unflatten(1, (3, 4))
        x = torch.relu(self.spread(x))
        return self.out(torch.relu(self.shared(torch.relu(self.shared(x)))).flatten(1))


@pytest.mark.parametrize(
    ("make", "groups", "grid"),
    [
        *(
            (make, groups, "mid-rise")
            for make in (Convolutions, Calls)
            for groups in ("layer", "kernel", "slice", "block")
        ),
        (Convolutions, "slice", "symmetric"),  # three levels at 2 bits
    ],
)
def test_damages_are_the_second_moment_of_what_the_errors_do_to_the_margins(make: Any, groups: str, grid: str) -> None:
    """Held against gradients of every margin of every sample, group by group, by autograd alone."""
    torch.manual_seed(0)
    network = make().eval()
    x = torch.randn(6, 1, 6, 6)
    grouping = Grouping(groups, 5)
    problem = measure(
        network, Dataset(x, None, "x"), groups=grouping, grid=grid, estimator=Estimator("exact"),
        sampling=Sampling(chunk=3), bits=(2, 5),
    )  # fmt: skip
    survey = survey_of(network, Dataset(x, None, "x"), groups=grouping, grid=grid, bits=(2, 5))
    assert len(survey.unlike_noise) >= 2
    logits, coherently = network(x), 0
    found = margins(logits)
    for site in survey.unlike_noise:
        weight = network.get_parameter(site.parameter)
        moments: Any = 0
        for sample in range(len(x)):
            for rival in range(logits.shape[1]):
                scale = float(found.inverse[sample, rival])
                margin = logits[sample, rival] - logits[sample, found.predicted[sample]]
                gradient = torch.autograd.grad(margin, weight, retain_graph=True, allow_unused=True)[0]
                products = [gradient.flatten(1) * error * scale for error in survey.errors(site)]
                alike = [gradient.flatten(1) ** 2 * error.square() * scale**2 for error in survey.errors(site)]
                coherent = [grouping.sum(site, p if grouping.fine else p.sum(1)).square() for p in products]
                random = [grouping.sum(site, p if grouping.fine else p.sum(1)) for p in alike]
                moments = moments + torch.stack([torch.stack(coherent), torch.stack(random)]).double() / len(x)
        got = torch.from_numpy(damages(problem)[survey.rows(site)].T.copy())
        if grouping.fine:  # else squared errors are means over kernels
            torch.testing.assert_close(got, moments.amax(0), rtol=1e-3, atol=1e-12)
        larger = moments[0] > 1.5 * moments[1]
        coherently += int(larger.sum())
        torch.testing.assert_close(got[larger], moments[0][larger], rtol=1e-3, atol=1e-12)
        assert bool((got >= moments[0] * 0.999).all())
    assert coherently or groups == "layer"  # kernels of a layer may cancel


def test_what_is_said_of_a_pruned_network_holds() -> None:
    network = pruned_network()
    for grid in ("auto", "mid-rise"):
        problem = measure(network, digits(), sampling=Sampling(samples=512, concede=0.02), grid=grid)
        held = Validation(network, problem, digits("test"), samples=16)
        for bits in (3, 4, 6):
            real = held.hold(np.where(problem.weights(), float(bits), 8.0))
            assert real.low <= real.bound, (grid, bits, real)
    assert real.float_accuracy is not None


def test_constant_weights_and_weights_on_a_grid_are_told() -> None:
    network = copy.deepcopy(digits_network()).eval()
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        layers[1][1].weight.copy_(on_a_grid(layers[1][1].weight))
        layers[2][1].weight.fill_(0.01)
    told = of(network).provenance["noise"]["errors_as_they_are"]
    assert set(told) == {layers[1][0], layers[2][0]}
    assert "scale of a kernel" in told[layers[1][0]] and "add up" in told[layers[2][0]]


def test_weights_that_rounding_leaves_alone_have_no_damage_and_it_is_known() -> None:
    network = copy.deepcopy(digits_network()).eval()
    with torch.no_grad():
        weight = network.fc.weight
        weight.copy_(ZERO.quantizer(weight.shape, [2], [weight.numel()])(weight))
    problem = of(network, grid={"fc": "zero"})
    row = problem.names.index_of("fc")
    assert not damages(problem)[row].any()
    assert problem.unmeasured is None or not problem.unmeasured[row]


def test_grids_can_be_forced_by_label_and_unknown_ones_are_told() -> None:
    network = digits_network()
    problem = of(network, grid={"fc": "zero:over=tensor"})
    assert problem.grids == {"fc": "zero:over=tensor"}
    spans = problem.ranges[problem.names.select("fc")]
    assert spans == pytest.approx([2 * float(network.fc.weight.detach().abs().max())])
    with pytest.raises(DataError, match=r"grid: no such weight in the network, got 'fd' \(did you mean 'fc'"):
        of(network, grid={"fd": "zero"})
    with pytest.raises(OptionError, match=r"unknown method, got 'zeros' \(did you mean 'zero'"):
        of(network, grid="zeros")


# -- half precision, and double ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_every_type_are_measured_validated_and_packed(dtype: Any, tmp_path: Path) -> None:
    """As the network of float32 that has the same weights, but for what its rounded weights lose in its type."""
    network = copy.deepcopy(digits_network()).to(dtype).eval()
    exact = copy.deepcopy(network).to(torch.float64 if dtype == torch.float64 else torch.float32)
    problem = of(network)
    reference = of(exact)
    tight = 1e-6 if dtype == torch.float64 else 0.02
    np.testing.assert_allclose(problem.damage.sensitivity, reference.damage.sensitivity, rtol=tight)
    told = problem.provenance.get("computed_in")
    assert told == (None if dtype == torch.float64 else f"float32, from parameters in {str(dtype)[6:]}")
    quantized = quantize(network, problem, np.where(problem.weights(), 4.0, 8.0)).eval()
    assert {p.dtype for p in quantized.parameters()} == {dtype}
    x = digits("test").inputs[:32].to(dtype)
    with torch.no_grad():
        logits = quantized(x)
        pack(quantized, tmp_path / "p")
        restored = unpack_into(network, tmp_path / "p").eval()
        assert torch.equal(restored(x), logits) and logits.dtype == dtype
    assert {t.dtype for n, t in restored.state_dict().items() if t.is_floating_point()} == {dtype}
    held = Validation(network, problem, digits("test"), samples=16)
    real = held.hold(np.where(problem.weights(), 4.0, 8.0))
    assert real.mismatch < 0.05
    decided = logits.argmax(1)
    assert float((decided != exact(x.to(torch.float64 if dtype == torch.float64 else torch.float32)).argmax(1))
                 .double().mean()) < 0.1  # fmt: skip


def test_gradients_that_float16_cannot_hold_are_measured() -> None:
    network = copy.deepcopy(digits_network()).eval()
    with torch.no_grad():  # logits a thousand times smaller: squared gradients fall below what float16 holds
        network.fc.weight.mul_(1e-3)
        network.fc.bias.mul_(1e-3)
    half = copy.deepcopy(network).half()
    problem = of(half)
    assert (damages(problem)[:, 2] > 0).all()
    np.testing.assert_allclose(
        problem.damage.sensitivity, of(copy.deepcopy(half).float()).damage.sensitivity, rtol=0.02
    )
