"""A zero is not a proof: where no gradient arrives, the damage is unknown, and what is said of the total stays true."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from known import known
from torch import nn
from torch.nn import functional

from impq_opt import Status, Verdict, solve, verify
from impq_opt.data import Dataset, load_data
from impq_opt.errors import DataError
from impq_opt.measure import Sampling, measure
from impq_opt.measure.api import survey_of
from impq_opt.measure.silent import unheard
from impq_opt.quantize import quantize


class Digits(nn.Module):
    """Digits by two layers and a head; ``fault`` is what its forward does to the gradient of the features."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.a = nn.Conv2d(1, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 24, 3, padding=1)
        self.fc = nn.Linear(24 * 16, 10)
        self.spare = nn.Linear(24 * 16, 10)

    def forward(self, x: Any) -> Any:
        if self.fault == "no_grad":
            with torch.no_grad():
                h = self.features(x)
        else:
            h = self.features(x)
        if self.fault == "detach":
            h = h.detach()
        if self.fault == "half rounded":
            h = torch.cat([torch.round(2 * h[:, :12]), h[:, 12:]], 1)
        if self.fault == "round":
            h = torch.round(2 * h)
        if self.fault == "unused branch":
            return self.fc(h.flatten(1)) + 0 * self.spare(h.flatten(1))
        return self.fc(h.flatten(1))

    def features(self, x: Any) -> Any:
        h = self.b(functional.relu(self.a(x)))
        h = torch.where(h > 0, 1.0, -1.0) if self.fault == "sign" else functional.relu(h)
        return functional.max_pool2d(h, 2)


@cache
def trained(fault: str) -> tuple[Digits, Dataset]:
    """Return a network that was trained before the gradient was stopped; behind a sign its head alone was."""
    data = load_data("digits", "train")
    torch.manual_seed(0)
    network = Digits("sign" if fault == "sign" else "")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(4):
        for rows in torch.randperm(len(data)).split(64):
            x, labels = data.rows(rows)
            optimizer.zero_grad()
            functional.cross_entropy(network(x), known(labels)).backward()
            optimizer.step()
    network.fault = fault
    return network.eval(), data


def mismatch(network: Any, quantized: Any, data: Any) -> float:
    with torch.no_grad():
        return float((network(data.inputs).argmax(1) != quantized.eval()(data.inputs).argmax(1)).double().mean())


# A trace sees through a detach and a no_grad; nothing comes back through a sign or a rounding.
SILENT, STOPPED = ("sign", "round"), ("detach", "no_grad")


@pytest.mark.parametrize("fault", ["", "unused branch", *SILENT, *STOPPED])
def test_what_is_said_of_a_network_holds(fault: Any) -> None:
    network, data = trained(fault)
    problem = measure(network, data, sampling=Sampling(samples=400, concede=0.005), residual="accumulate")
    unknown = (
        set() if problem.unmeasured is None else {problem.names[int(g)] for g in np.flatnonzero(problem.unmeasured)}
    )
    assert unknown & {"a", "b", "fc"} == ({"a", "b"} if fault in SILENT else set())
    if fault in STOPPED:
        assert (problem.damage.sensitivity > 0).all()
    for bound in (0.1, 0.01):
        answer = solve(problem, bound=bound)
        assert answer.status is Status.OPTIMAL
        assert all(answer.bits[problem.names.index_of(name)] == 8 for name in unknown)
        said = {check.name: check.verdict for check in verify(problem, answer).checks}
        true = mismatch(network, quantize(network, problem, answer), data)
        assert said["damage"] is (Verdict.CLAIMED if unknown else Verdict.PROVED)
        # At 8 bits the frozen layers do little, proved or not.
        assert true <= bound + 0.005 + (0.01 if unknown else 0)


@pytest.mark.parametrize("fault", SILENT)
def test_one_bit_where_nothing_is_known_would_break_what_was_asked(fault: Any) -> None:
    """The reason for all of this: the zeros taken as they are cost many times what the bound allows."""
    network, data = trained(fault)
    problem = measure(network, data, sampling=Sampling(samples=400, concede=0.005)).revise(free_unmeasured=True)
    answer = solve(problem, bound=0.01)
    assert answer.bits[0] == answer.bits[1] == 1
    assert mismatch(network, quantize(network, problem, answer), data) > 0.05  # five times what the bound allows
    found = verify(problem, answer)
    assert not found.proved
    assert {c.name for c in found.checks if c.verdict is Verdict.CLAIMED} >= {"damage", "limits"}


def test_kernels_without_a_gradient_are_told_from_the_dead_ones_of_the_same_layer() -> None:
    _, data = trained("half rounded")
    network: Any = Digits("half rounded")
    network.load_state_dict(trained("half rounded")[0].state_dict())
    with torch.no_grad():
        network.b.weight[2] = 0  # no weights: nothing to round, and no effect
        network.b.bias[2] = 0
        network.b.bias[5] = network.b.bias[20] = -100  # behind the rectifier nothing of these is left
    problem = measure(network.eval(), data, groups="kernel", sampling=Sampling(samples=200))
    unknown = {problem.names[int(g)] for g in np.flatnonzero(known(problem.unmeasured))}
    assert unknown == {f"b[{k}]" for k in range(12) if k not in (2, 5)}
    record = problem.provenance["zero_damages"]
    assert record["no_gradient"]["groups"] == 10 and record["no_effect"]["groups"] >= 3
    answer = solve(problem, bound=0.05)
    assert answer.bits[problem.names.index_of("b[20]")] == 1


@pytest.mark.parametrize("groups", ["kernel", "slice", "block:50", "layer"])
def test_noise_is_put_on_the_groups_that_are_asked_and_on_no_others(groups: str) -> None:
    """Each group is tested alone here: an effect is seen where its weights reach the logits, and only there."""
    from impq_opt.measure import Grouping

    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3)).eval()
    with torch.no_grad():
        network[2].weight.view(3, 6, 16)[:, 4:] = 0  # what channels 4 and 5 say is not read
    data = Dataset(torch.randn(8, 2, 6, 6), None, "own")
    kind, _, size = groups.partition(":")
    survey = survey_of(network, data, groups=Grouping(kind, int(size)) if size else Grouping(kind))
    first = survey.names.label_of == 0
    elements = np.arange(6 * 18).reshape(6, 18)
    read = np.zeros((6, 18), dtype=bool)
    read[:4] = True
    for group in np.flatnonzero(first):
        zero = np.zeros(len(survey), dtype=bool)
        zero[group] = True
        expected = {
            "layer": True,
            "kernel": group < 4,
            "slice": group // 2 < 4,
            "block": bool(read.ravel()[elements.ravel() // 50 == group].any()),
        }[kind]
        assert unheard(survey, data, zero)[group] == expected


def test_a_network_that_no_gradient_goes_through_is_refused_with_the_reason() -> None:
    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), Stop(), nn.ReLU())
    data = Dataset(torch.randn(16, 1, 4, 4), None, "own")
    with pytest.raises(DataError, match="no gradient reaches any of them"):
        measure(network, data)
    with torch.no_grad():
        network[1].weight.zero_()
    with pytest.raises(DataError, match="no group has any effect"):
        measure(network, data)


class Stop(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.sign(x)


def test_every_parameter_is_in_a_group_or_stays() -> None:
    torch.manual_seed(0)
    network = Experts().eval()
    problem = measure(network, Dataset(torch.randn(64, 1, 8, 8), None, "own"))
    assert problem.stored == 32
    elements = sum(parameter.numel() for parameter in network.parameters())
    whole = problem.whole(np.full(len(problem), 4))
    assert known(whole).parameters == elements
    inside = int(problem.sizes[problem.weights()].sum())
    assert known(whole).staying == elements - inside and 64 * 4 + 16 * 5 <= inside < elements
    assert known(whole).bits == 32 * known(whole).staying + 4 * inside
    assert known(whole).ratio == Fraction(32 * elements, int(known(whole).bits))
    listed = {stay.name: stay.elements for stay in known(problem.stays)}
    assert listed == {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if name.removesuffix(".weight") not in problem.names.labels
    }
    assert listed["scale"] == 16


class Experts(nn.Module):
    """A mixture whose experts are two tensors of three dimensions, and a scale of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.fc = nn.Linear(64, 4), nn.Linear(16, 5)
        self.scale = nn.Parameter(torch.ones(16))
        self.w1, self.w2 = (nn.Parameter(torch.randn(4, *shape) * 0.1) for shape in ((64, 32), (32, 16)))

    def forward(self, x: Any) -> Any:
        x = x.flatten(1)
        h = torch.einsum("beh,eho->beo", functional.relu(torch.einsum("bi,eih->beh", x, self.w1)), self.w2)
        return self.fc(self.scale * (h * self.gate(x).softmax(-1).unsqueeze(-1)).sum(1))
