"""Samples of several decisions, as language models make one at each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from impq_opt.data import Dataset
from impq_opt.data.decisions import IGNORED, by_decision, shares
from impq_opt.errors import DataError, OptionError, UnsupportedError
from impq_opt.measure import Estimator, Sampling, measure
from impq_opt.measure.api import survey_of
from impq_opt.measure.metrics import load_metric
from impq_opt.measure.metrics.fisher import Fisher, probe
from impq_opt.measure.metrics.kl import Kl
from impq_opt.measure.pool import Pool, look_at
from impq_opt.measure.replicates import Chunks, Replicates, replicate
from impq_opt.measure.survey import Survey

WORDS, WIDTH, LENGTH = 7, 4, 3


class Reader(nn.Module):
    """Tokens (n, length) to the logits of one decision each; with ``mixed`` each sees what came before."""

    def __init__(self, *, mixed: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.mixed = mixed

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.table(input_ids)
        if self.mixed:
            x = x.cumsum(1)
        return {"logits": self.head(torch.tanh(self.inner(x)))}


@pytest.fixture(scope="module")
def reader() -> Reader:
    torch.manual_seed(0)
    return Reader().eval()


@pytest.fixture(scope="module")
def survey(reader: Reader) -> Survey:
    return _survey(reader, _text(2))


def _text(count: int, seed: int = 1) -> Dataset:
    ids = torch.randint(0, WORDS, (count, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return Dataset({"input_ids": ids[:, :-1]}, ids[:, 1:])


def _survey(reader: Reader, data: Dataset) -> Survey:
    return survey_of(
        reader, data, bits=(2, 3), grid="symmetric", weights_only=True, without=["table.weight"], estimator="signs"
    )


def _found(survey: Survey, data: Dataset, metric: Any) -> Replicates:
    """Return what a metric says of the samples, each a chunk."""
    pool = Pool(torch.arange(len(data)), torch.empty(0), torch.zeros(len(data), dtype=torch.bool))
    return replicate(survey, Chunks(data, pool, Sampling(chunk=1)), metric, columns=metric.columns(survey))


def _logits(reader: Reader, ids: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
    found: Tensor = torch.func.functional_call(reader, weights or {}, (ids,))["logits"]
    return found.detach()


def _moved(reader: Reader, ids: Tensor, name: str, error: Tensor) -> Tensor:
    """Return the derivative of the logits by a weight, in the direction of ``error``: a central difference."""
    weights = {key: value.detach().double() for key, value in reader.named_parameters()}
    near = [
        _logits(reader, ids, weights | {name: weights[name] + sign * 1e-4 * error.double()}) for sign in (1.0, -1.0)
    ]
    return (near[0] - near[1]) / 2e-4


def _form(reader: Reader, ids: Tensor, moved: Tensor) -> float:
    """Return the divergence to second order of what moves the logits so."""
    chances = _logits(reader, ids).softmax(2)
    return 0.5 * float(((chances * moved.square()).sum(2) - (chances * moved).sum(2).square()).mean())


def test_probes_have_the_covariance_of_the_softmax() -> None:
    logits = torch.tensor([0.3, -1.2, 2.0])
    chances = logits.softmax(0)
    drawn = probe(logits.expand(40_000, 3), torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        drawn.T @ drawn / len(drawn), chances.diag() - chances[:, None] * chances, rtol=0, atol=0.004
    )
    assert float(drawn.sum(1).abs().max()) < 1e-6  # what moves all logits alike is no change


def test_fisher_is_the_second_order_of_the_divergence(reader: Reader, survey: Survey) -> None:
    """Brute force: the derivatives of all logits, the covariance of each softmax, and the errors of the grid.

    And what the two layers do together is the form of the sum of what each does.
    """
    data, probes = _text(6), 400
    ids = data.rows(torch.arange(6))[0]["input_ids"]
    metric = Fisher(probes=probes, interactions=True)
    result = _found(survey, data, metric)
    values = metric.law(survey, result.mean, result.stderr).values
    factors = metric.together(survey, result.mean, result.stderr)
    assert factors is not None
    spread = 5 * 1.5 / np.sqrt(6 * probes)  # one probe has that of a square of a sum of signs, 1.4 at most
    for column in range(2):
        moved = [
            _moved(reader, ids, site.parameter, survey.errors(site)[column].view(site.shape))
            for site in survey.network.weights
        ]
        alone = [_form(reader, ids, one) for one in moved]
        np.testing.assert_allclose(values[:2, column], alone, rtol=spread)
        both = values[:2, column].sum() + float(factors.total(np.full(len(survey), column)))
        assert both == pytest.approx(_form(reader, ids, moved[0] + moved[1]), rel=2 * spread)


def test_divergences_are_means_over_samples_of_means_over_decisions(reader: Reader, survey: Survey) -> None:
    data = _text(5)
    found = _found(survey, data, Kl()).mean
    ids = data.rows(torch.arange(5))[0]["input_ids"]
    before = _logits(reader, ids).double().log_softmax(2)
    for row, site in enumerate(survey.network.weights):
        for column in range(2):
            weight = reader.get_parameter(site.parameter).detach()
            changed = weight + survey.errors(site)[column].view(weight.shape)
            other = _logits(reader, ids, {site.parameter: changed}).double().log_softmax(2)
            wanted = float((before.exp() * (before - other)).sum(2).mean())
            assert found[row, column] == pytest.approx(wanted, rel=1e-4)


def test_decisions_of_one_sample_do_not_make_standard_errors_smaller() -> None:
    """The same token at every place: three decisions that say no more than two, or one."""
    torch.manual_seed(0)
    apart = Reader(mixed=False).eval()
    found = []
    for length in (2, 3):
        data = Dataset({"input_ids": torch.arange(WORDS)[:, None].expand(-1, length).contiguous()})
        found.append(_found(_survey(apart, data), data, Kl()))
    np.testing.assert_allclose(found[1].mean, found[0].mean, rtol=1e-6)
    np.testing.assert_allclose(found[1].stderr, found[0].stderr, rtol=1e-6)


def test_margins_are_looked_at_by_decision(reader: Reader, survey: Survey) -> None:
    ids, labels = _text(4).rows(torch.arange(4))
    assert labels is not None
    labels[0, 1:] = IGNORED
    pool = look_at(survey.network, Dataset(ids, labels), torch.arange(4))
    logits = _logits(reader, ids["input_ids"]).double()
    gaps = logits.amax(2, keepdim=True) - logits
    each = torch.where(gaps > 0, 1 / gaps.square(), 0.0).sum(2)
    wanted = each.mean(1)
    wanted[0] = each[0, 0]
    torch.testing.assert_close(pool.tail, wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["impq", "fit", "hawq", "fisher:of=loss", "loss-delta"])
def test_other_metrics_take_several_decisions(survey: Survey, name: str) -> None:
    metric = load_metric(name)
    result = _found(survey, _text(8), metric)
    damage = metric.law(survey, result.mean, result.stderr).at(slice(None), (2.0, 3.0))
    assert (damage >= 0).all()
    assert damage.any()


def test_a_problem_tells_of_decisions_and_of_what_is_left_out(reader: Reader) -> None:
    problem = measure(
        reader, _text(16), metric="fisher", bits=(2, 3), grid="symmetric", weights_only=True, without=["table.weight"]
    )
    assert problem.names.labels == ("inner", "head")
    assert problem.provenance["decisions"] == LENGTH
    assert [stay.name for stay in problem.stays or ()] == ["table.weight"]


def test_shares_leave_out_what_does_not_count() -> None:
    labels = torch.tensor([[1, IGNORED, 2], [IGNORED] * 3, [0, 0, 0]])
    torch.testing.assert_close(shares(torch.ones(3), labels, 3), torch.tensor([[0.5, 0, 0.5], [0, 0, 0], [1 / 3] * 3]))
    flat, weights = by_decision(labels, torch.ones(3), 3)
    assert flat is not None
    assert flat.tolist() == [1, 0, 2, 0, 0, 0, 0, 0, 0]
    assert len(weights) == 9


def test_what_does_not_go_with_several_decisions_is_refused(reader: Reader, survey: Survey) -> None:
    data = _text(4)
    with pytest.raises(UnsupportedError, match="'gaussian' takes samples of one decision"):
        _found(survey, data, load_metric("gaussian"))
    with pytest.raises(UnsupportedError, match="'exact' takes samples of one decision, not of 3"):
        Estimator("exact").estimate(
            survey.network, data.rows(torch.arange(2))[0], torch.ones(2), torch.Generator(), fine=False
        )
    with pytest.raises(OptionError, match="concede: goes with one decision a sample, got 3"):
        look_at(survey.network, data, torch.arange(4), concede=0.1)
    with pytest.raises(DataError, match=r"a label for each of the 3 decisions of a sample, got \(1, 2\)"):
        _found(survey, Dataset(data.inputs, data.labels[:, :2]), Fisher(of="loss"))  # type: ignore[index]
    with pytest.raises(DataError, match=r"no such parameter in the network, got 'tabel\.weight'.*'table\.weight'"):
        measure(reader, data, weights_only=True, without=["tabel.weight"])
    with pytest.raises(OptionError, match="of: is nothing to take the information of, got 'time'"):
        Fisher(of="time")
