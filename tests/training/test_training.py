"""The one training loop: order, schedules, resuming, objectives and hooks."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from measure_world import tensor_of
from rounds_world import Stripes, measure, small
from torch import nn

from impq_opt.data import Dataset
from impq_opt.errors import DataError, OptionError
from impq_opt.networks.shipped import Drawn
from impq_opt.quantize import quantize, state_of
from impq_opt.training import Hook, Scored, Training, accuracy, cross_entropy, train
from impq_opt.training.loop import train_on
from impq_opt.training.schedules import SCHEDULES, cosine, cosine_from_start, one_cycle
from impq_opt.training.seeds import mix

PLAIN = Training(batch=32, rate=0.05, augment="none")


class StoppedError(Exception):
    pass


class StopAt(Hook):
    """Take all that a checkpoint would, after some step, and stop."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def after_step(self, course: Any) -> None:
        if course.progress.step == self.step:
            kept = {name: value.clone() for name, value in course.progress.optimizer.items()}
            self.progress = dataclasses.replace(course.progress, optimizer=kept)
            self.state = {name: value.clone() for name, value in course.network.state_dict().items()}
            raise StoppedError


def same(network: Any, other: Any) -> Any:
    return all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


def resumed(settings: Any, cut: Any, *, hook: Any = None, objective: Any = cross_entropy, build: Any = small) -> Any:
    """Train for two epochs with a stop after ``cut`` steps; return the progress and the network."""
    stop, network = StopAt(cut), build()

    class Both(Hook):
        def before_step(self, course: Any) -> None:
            if hook is not None:
                hook.before_step(course)

        def after_step(self, course: Any) -> None:
            stop.after_step(course)

    with pytest.raises(StoppedError):
        train(network, Stripes(200, 0), settings, epochs=2, objective=objective, hook=Both())
    again = build(7)
    again.load_state_dict(stop.state)
    done = train(again, Stripes(200, 0), settings, epochs=2, objective=objective, hook=hook, progress=stop.progress)
    return done, again


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "crop-flip"},
        {"optimizer": "nesterov", "schedule": "one-cycle", "warmup": 0.3},
        {"optimizer": "adam", "rate": 1e-3},
        {"momentum": 0.0},
    ],
    ids=str,
)
def test_training_resumes_at_any_step_to_the_same_bits(changes: Any) -> None:
    settings = dataclasses.replace(PLAIN, **changes)
    reference = small()
    whole = train(reference, Stripes(200, 0), settings, epochs=2)
    assert whole.step == 12
    for cut in (1, 6, 7, 11):
        done, network = resumed(settings, cut)
        assert (done.step, done.hits, done.loss) == (whole.step, whole.hits, whole.loss)
        assert same(network, reference), cut
    other = small()
    train(other, Stripes(200, 0), dataclasses.replace(settings, seed=1), epochs=2)
    assert not same(other, reference)


def test_epochs_are_those_of_one_long_training_wherever_it_is_cut_in_two() -> None:
    """Batches depend on the seed and the epoch's number alone: two calls see what one call sees."""
    seen = []

    def watched(network: Any, batch: Any) -> Any:
        seen.append(batch.inputs.clone())
        return cross_entropy(network, batch)

    train(small(), Stripes(200, 0), PLAIN, epochs=3, objective=watched)
    whole, seen = seen, []
    train(small(), Stripes(200, 0), PLAIN, epochs=1, objective=watched)
    train(small(), Stripes(200, 0), PLAIN, epochs=2, first_epoch=1, objective=watched)
    assert all(torch.equal(a, b) for a, b in zip(whole, seen, strict=True))


class Scaled(nn.Module):
    """A network behind a learned scale, and a temperature that a hook sets."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.inner, self.scale = small(seed), nn.Parameter(torch.ones(()))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.scale / self.temperature


class Cooling(Hook):
    """A temperature that falls with the steps, and a stage: the first layer rests in the first epoch."""

    def before_step(self, course: Any) -> None:
        course.network.temperature.fill_(2.0 - course.progress.step / course.steps)
        course.network.inner.conv1.requires_grad_(course.progress.step >= course.per_epoch)


def with_penalty(network: Any, batch: Any) -> Any:
    """Cross entropy and a term on logits."""
    scored = cross_entropy(network, batch)
    return Scored(scored.loss + 0.01 * scored.logits.square().mean(), scored.logits)


def test_terms_of_the_loss_temperatures_and_stages_resume_too() -> None:
    reference: Any = Scaled()
    first = reference.inner.conv1.weight.detach().clone()
    train(reference, Stripes(200, 0), PLAIN, epochs=2, objective=with_penalty, hook=Cooling())
    assert float(reference.temperature) == pytest.approx(2 - 11 / 12)
    assert float(reference.scale.detach()) != 1
    for cut in (3, 6, 8):
        _, network = resumed(PLAIN, cut, hook=Cooling(), objective=with_penalty, build=Scaled)
        assert same(network, reference), cut
    plain = Scaled()
    train(plain, Stripes(200, 0), PLAIN, epochs=2, hook=Cooling())
    assert not same(plain, reference)  # the term counts
    rested = Scaled()
    train(rested, Stripes(200, 0), PLAIN, epochs=1, hook=Cooling())
    assert not torch.equal(rested.inner.fc.weight, Scaled().inner.fc.weight)
    assert torch.equal(rested.inner.conv1.weight, first)


def test_hooks_are_called_around_steps_and_after_epochs() -> None:
    calls = []

    class Told(Hook):
        def before_step(self, course: Any) -> None:
            calls.append(("before", course.progress.step))

        def after_step(self, course: Any) -> None:
            calls.append(("after", course.progress.step))

        def after_epoch(self, course: Any) -> None:
            calls.append(("epoch", course.progress.step))

    train(small(), Stripes(70, 0), PLAIN, epochs=2, hook=Told())
    assert calls == [
        ("before", 0), ("after", 1), ("before", 1), ("epoch", 2), ("after", 2),
        ("before", 2), ("after", 3), ("before", 3), ("epoch", 4), ("after", 4),
    ]  # fmt: skip


def test_a_step_is_the_step_of_plain_torch() -> None:
    network, data = small(), Stripes(64, 0)
    network.drop.p = 0.0
    settings = Training(batch=64, rate=0.1, warmup=0.0, augment="none", channels_last=False, momentum=0.5, decay=0.01)
    plain = small()
    plain.drop.p = 0.0
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01)
    for rate in (0.1, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(data.inputs), data.labels).backward()
        optimizer.step()
    train(network, data, settings, epochs=2)
    for a, b in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# -- schedules ---------------------------------------------------------------------------------------------------


def test_the_cosine_rises_and_falls_to_zero() -> None:
    rates = [cosine(0.1, 0.1, step, 100).rate for step in range(101)]
    assert rates[:10] == pytest.approx([0.01 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (37, 0.25), (9, 0.5)])
def test_one_cycle_is_that_of_torch_to_the_bit(steps: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps, pct_start=warmup)
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"]) == tuple(one_cycle(0.2, warmup, step, steps))
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()


@pytest.mark.parametrize(("epochs", "rising"), [(10, 1), (30, 3), (19, 1), (3, 0)])
def test_the_cosine_from_the_start_joins_where_it_would_have_been(epochs: int, rising: int) -> None:
    rates = [cosine_from_start(1.0, 0.1, step, 50 * epochs, 50).rate for step in range(50 * epochs)]
    warm = 50 * rising
    assert rates[:warm] == pytest.approx([(step + 1) / warm for step in range(warm)])
    expected = [0.5 + 0.5 * math.cos(math.pi * step / (50 * epochs)) for step in range(warm, 50 * epochs)]
    assert rates[warm:] == pytest.approx(expected)
    if epochs in (10, 30):
        assert round(rates[warm], 3) == 0.976


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_schedules_stay_between_zero_and_the_peak_for_any_number_of_steps(name: Any, warmup: float) -> None:
    for steps in (1, 2, 3, 10, 11):
        rates = [SCHEDULES[name](0.1, warmup, step, steps, 1).rate for step in range(steps)]
        assert all(0 <= rate <= 0.1 * (1 + 1e-12) for rate in rates)


# -- the rest ----------------------------------------------------------------------------------------------------


def test_batches_from_one_generator_are_found_again() -> None:
    data = Dataset(torch.rand(50, 1, 4, 4), torch.arange(50))
    settings = Training(batch=16)
    drawn, device = Drawn(data, settings), torch.device("cpu")
    seen = [drawn.at(epoch, place, device) for epoch in range(2) for place in range(3)]
    assert drawn.per_epoch == 3
    assert len(set(torch.cat([batch.labels for batch in seen[:3]]).tolist())) == 48
    for number in (5, 2, 4):
        again = drawn.at(*divmod(number, 3), device)
        assert torch.equal(cast(torch.Tensor, again.inputs), cast(torch.Tensor, seen[number].inputs))
        assert torch.equal(again.labels, seen[number].labels)
    pairs = [pair for inputs, labels in seen for pair in zip(cast(torch.Tensor, inputs), labels, strict=True)]
    mirrored = [torch.equal(image, tensor_of(data)[label].flip(-1)) for image, label in pairs]
    assert 0.2 < np.mean(mirrored) < 0.8
    train_on(nn.Sequential(nn.Flatten(), nn.Linear(16, 50)), Drawn(data, settings), settings, epochs=1)


def test_seeds_of_neighbouring_steps_are_unlike() -> None:
    seeds = {mix(s, e, p) for s in range(5) for e in range(5) for p in range(40)}
    assert len(seeds) == 1000
    assert mix(1, 2) != mix(2, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_bf16_compile_and_channels_last_train_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # Forward and backward are captured as for any backend; what a C++ compiler makes of that is torch's own.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    finals = {}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"channels_last": False},
        "channels_last": {},
        "bf16": {"bf16": True},
        "compile": {"compile": True},
    }
    for name, changes in kinds.items():
        network = small()
        network.drop.p = 0.0  # compiled dropout draws other numbers
        problem = measure(network, Stripes(200, 0), 0)
        quantized = quantize(network, problem, np.full(20, 4))
        train(quantized, Stripes(200, 0), dataclasses.replace(PLAIN, **changes), epochs=1)
        finals[name] = state_of(quantized, latent=True)["conv2.weight"]
    moved = float((finals["plain"] - small().conv2.weight).detach().abs().max())
    assert moved > 0.01
    torch.testing.assert_close(finals["channels_last"], finals["plain"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(finals["compile"], finals["plain"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(finals["bf16"], finals["plain"], rtol=0, atol=moved / 3)


def test_accuracy_is_the_share_of_right_labels_and_leaves_the_mode() -> None:
    network, data = small().train(), Stripes(70, 0)
    with torch.no_grad():
        right = (small().eval()(data.inputs).argmax(1) == data.labels).double().mean()
    assert accuracy(network, data, batch=32) == pytest.approx(float(right))
    assert network.training
    with pytest.raises(DataError, match="has no labels"):
        accuracy(network, Dataset(data.inputs))


def test_divergence_and_small_data_are_told() -> None:
    with pytest.raises(DataError, match="smaller than one batch, got 20"):
        train(small(), Stripes(20, 0), PLAIN, epochs=1)
    with pytest.raises(DataError, match=r"training diverged.*lower the rate"):
        train(small(), Stripes(200, 0), dataclasses.replace(PLAIN, rate=1e30), epochs=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "training.batch: must be positive, got 0"),
        ({"rate": -1.0}, "training.rate: must be positive"),
        ({"momentum": 1.0}, "training.momentum: must be at least 0 and below 1"),
        ({"decay": -1.0}, "training.decay: must not be negative"),
        ({"augment": "mixup"}, "training.augment: must be one of none, flip, crop-flip, got 'mixup'"),
        ({"schedule": "cosin"}, r"training.schedule.*did you mean 'cosine'"),
        ({"optimizer": "sdg"}, r"training.optimizer.*did you mean 'sgd'"),
    ],
)
def test_bad_settings_are_told(changes: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Training(**changes)
