"""What every metric must keep, checked on a small network with a residual branch. Needs torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.data.dataset import Dataset
from impq_opt.groups.damage import DamageTable
from impq_opt.measure.api import survey_of
from impq_opt.measure.metrics import Metric
from impq_opt.measure.pool import Chunk
from impq_opt.measure.survey import Survey
from impq_opt.testing.rules import rule
from impq_opt.types import FloatArray

__all__ = ["check_metric"]


class _Residual(nn.Module):
    """Two convolutions, one of them read twice, and a head; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.body(x)) + x)
        logits: Tensor = self.out(x.mean((2, 3)))
        return logits


def check_metric(metric: Metric, network: nn.Module | None = None, data: Dataset | None = None) -> None:
    """Raise ConformanceError, with the rule, unless ``metric`` keeps every rule, by layer and by kernel.

    The rules: it has a unit; a chunk tells a finite number of every group and column; the same chunk and seed tell the
    same; twice the weights tell twice as much, or the same where a mean is told, and chunks add up where nothing is
    drawn at random; the network is left as it was; damages are finite and not negative, whatever the sums came to, and
    have standard errors.

    Parameters
    ----------
    metric : Metric
    network, data : optional
        A classifier and labelled samples of it; a network of three layers with random weights unless given.

    Raises
    ------
    ConformanceError
    """
    generator = torch.Generator().manual_seed(0)
    if network is None or data is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = _Residual().eval()
        inputs = torch.randn(24, 2, 6, 6, generator=generator)
        data = Dataset(inputs, torch.randint(0, 3, (24,), generator=generator), name="random")
    name = type(metric).__name__
    rule(bool(metric.unit), name, "it has no unit")
    for word in ("labels", "margins"):
        rule(isinstance(getattr(metric, word), bool), name, f"{word} is not a yes or no")
    for groups in ("layer", "kernel"):
        survey = survey_of(network, data, groups=groups, estimator="exact", bits=(2, 4, 8))
        _check(metric, survey, data, f"{name} by {groups}")


def _check(metric: Metric, survey: Survey, data: Dataset, name: str) -> None:
    columns = metric.columns(survey)
    rule(isinstance(columns, int) and columns >= 1, name, "it tells no number of a group")
    before = {node: tensor.clone() for node, tensor in survey.network.tensors.items()}
    whole = _tell(metric, survey, data, slice(None), 1.0)
    rule(whole.shape == (len(survey), columns), name, f"a chunk tells {whole.shape}, not {(len(survey), columns)}")
    rule(whole.dtype == np.float64 and bool(np.isfinite(whole).all()), name, "a chunk tells what is no finite float64")
    same = np.array_equal(whole, _tell(metric, survey, data, slice(None), 1.0))
    rule(same, name, "the same chunk and seed tell something else")
    doubled = _tell(metric, survey, data, slice(None), 2.0)
    sums = np.isclose(doubled, 2 * whole, rtol=1e-4, atol=1e-30)  # elsewhere a mean is told, not a sum
    told = "twice the weights tell neither twice as much nor the same"
    rule(bool((sums | np.isclose(doubled, whole, rtol=1e-4, atol=1e-30)).all()), name, told)
    unchanged = all(torch.equal(tensor, before[node]) for node, tensor in survey.network.tensors.items())
    rule(unchanged and set(before) == set(survey.network.tensors), name, "it changes the network")
    halves = [
        _tell(metric, survey, data, part, 1.0) for part in (slice(None, len(data) // 2), slice(len(data) // 2, None))
    ]
    if np.array_equal(whole, _tell(metric, survey, data, slice(None), 1.0, seed=2)):  # nothing is drawn at random
        together = np.where(sums, 1.0, 0.5) * (halves[0] + halves[1])
        rule(np.allclose(together, whole, rtol=1e-4, atol=1e-12), name, "chunks do not add up")
    for mean in (whole, np.zeros_like(whole), *(2 * half for half in halves)):
        _check_law(metric, survey, mean, name)


def _tell(metric: Metric, survey: Survey, data: Dataset, part: slice, weight: float, seed: int = 1) -> FloatArray:
    rows = torch.arange(len(data))[part]
    inputs, labels = data.rows(rows)
    weights = torch.full((len(rows),), weight / len(data), dtype=torch.float64)
    return metric.chunk(survey, Chunk(inputs, labels, weights, torch.Generator().manual_seed(seed)))


def _check_law(metric: Metric, survey: Survey, mean: FloatArray, name: str) -> None:
    law = metric.law(survey, mean.copy(), 0.1 * np.abs(mean))
    values = law.values if isinstance(law, DamageTable) else law.sensitivity
    shape = (len(survey), len(survey.bits)) if isinstance(law, DamageTable) else (len(survey),)
    rule(values.shape == shape, name, f"damages have shape {values.shape}, not {shape}")
    rule(bool(np.isfinite(values).all() and (values >= 0).all()), name, "a damage is negative or not finite")
    rule(law.stderr is not None and law.stderr.shape == shape, name, "damages have no standard errors")
