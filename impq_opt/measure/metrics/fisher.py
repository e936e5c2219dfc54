"""The divergence from the float network to second order: rounding errors in the metric of Fisher's information."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from impq_opt.errors import OptionError
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.interactions import Factors
from impq_opt.measure.estimators import Squares
from impq_opt.measure.margins import check_logits, signs
from impq_opt.measure.metrics.measured_error import error_law
from impq_opt.measure.pool import Chunk
from impq_opt.measure.rounding import activation_errors
from impq_opt.measure.shifts import Shifts
from impq_opt.measure.survey import Survey
from impq_opt.measure.sweeps import batches
from impq_opt.measure.taps import Taps
from impq_opt.measure.together import factors_of, gram_columns, width_of_gram
from impq_opt.types import FloatArray

__all__ = ["Fisher", "probe"]

OF = ("kl", "loss")
_KEPT = 2**28  # elements of rounding errors that are kept between passes: 1 GiB


@dataclass(frozen=True)
class Fisher:
    """``1/2 mean_x e' F(x) e``: e the rounding errors of a group as they are, F the Fisher information of a sample.

    It is KL(p || q) to second order (Martens 2020, arXiv:1412.1193): ``F = sum_d J' (diag p - p p') J`` with J the
    derivative of the logits. The covariance of the softmax has the square root ``(I - p 1') diag(sqrt p)``, so random
    signs v at the classes, turned by it, leave ``(J e)' (diag p - p p') (J e)`` as the mean square of one number: one
    backward pass a probe, whatever the number of classes and decisions. Errors are summed up with the gradient before
    they are squared: what they do together within a group counts, as well as what a layer reads.

    Parameters
    ----------
    of : {"kl", "loss"}
        ``loss``: the empirical Fisher information instead, from the gradients of the cross-entropy to the labels.
    probes : int
        Random signs of each decision. The standard error of one is 1.4 over the root of the number of samples.
    interactions : bool
        Measure from the same passes what groups do together: the very products of what they do alone.
    """

    of: str = "kl"
    probes: int = 1
    interactions: bool = False
    unit = "nat"
    margins = False

    def __post_init__(self) -> None:
        if self.of not in OF:
            raise OptionError("is nothing to take the information of", where="of", value=self.of, hint="kl or loss")
        if self.probes < 1:
            raise OptionError("must be at least 1", where="probes", value=self.probes)

    @property
    def labels(self) -> bool:
        """Whether samples need labels."""
        return self.of == "loss"

    def columns(self, survey: Survey) -> int:
        width = len(survey.bits)
        if self.interactions and not survey.weights_only:
            raise OptionError("are measured of weights alone", where="interactions", hint="leave activations out")
        # Without interactions one more, for the gradients of activations.
        return width_of_gram(survey.weight_groups, width) if self.interactions else width + 1

    def chunk(self, survey: Survey, part: Chunk) -> FloatArray:
        width, weights = len(survey.bits), survey.weight_groups
        squares, slopes = np.zeros((len(survey), width)), Squares({}, {})
        pairs = np.zeros((weights * width,) * 2 if self.interactions else 0)
        errors = Shifts(survey.grouping, _Errors(survey))
        taps = Taps(survey.network, fine=survey.grouping.fine, shifts=errors, squares=not survey.weights_only)
        for x, labels, shares in batches(part, survey.estimator.batch, survey.network.decisions):
            logits = taps.forward(x)
            check_logits(logits)
            scale = (shares / self.probes).sqrt().to(logits.device, torch.float32)[:, None]
            for number in range(self.probes):
                turned = scale * self._coefficients(logits.detach().float(), labels, part.generator)
                masked = logits.masked_fill(logits.isneginf(), 0)
                taps.backward((masked * turned.to(logits.dtype)).sum(), keep=number + 1 < self.probes)
                slopes.add(taps)
                signed = _signed(survey, taps, len(x))
                squares[:weights] += signed.square().sum(0).numpy()
                if self.interactions:
                    flat = signed.flatten(1)
                    pairs += (flat.T @ flat).numpy()
        if self.interactions:
            columns = 0.5 * gram_columns(squares[:weights], pairs)
            return np.pad(columns, ((0, len(survey) - weights), (0, 0)))  # activations are left out of the problem
        table = np.zeros((len(survey), width + 1))
        table[:, :-1] = squares
        if not survey.weights_only:
            with torch.no_grad():
                _, squared = activation_errors(survey, part.x, part.weights)
            for row, site in enumerate(survey.network.activations, weights):
                table[row] = [*squared[site.name], slopes.activations.get(site.name, 0.0)]
        table[:weights] *= 0.5
        table[weights:, -1] *= 0.5
        return table

    def law(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> DamageTable:
        width = len(survey.bits)
        if self.interactions:
            return DamageTable(mean[:, :width], stderr[:, :width])
        return error_law(survey, mean, stderr)

    def together(self, survey: Survey, mean: FloatArray, stderr: FloatArray) -> Factors | None:
        """Return what groups do together, where it was measured."""
        if not self.interactions:
            return None
        weights = survey.weight_groups
        found = factors_of(mean[:weights], stderr[:weights], len(survey.bits))
        none = ((0, len(survey) - weights), (0, 0), (0, 0))
        return Factors(np.pad(found.values, none), None if found.stderr is None else np.pad(found.stderr, none))

    def _coefficients(self, logits: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        if self.of == "kl":
            return probe(logits, generator)
        assert labels is not None
        slope = logits.softmax(1) - functional.one_hot(labels, logits.shape[1])
        return slope * signs((len(slope), 1), generator).to(slope)


def probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return random vectors (n, classes) of covariance ``diag p - p p'``, p the softmax of logits (n, classes)."""
    chances = logits.softmax(1)
    turned = chances.sqrt() * signs(logits.shape, generator).to(chances)
    return turned - chances * turned.sum(1, keepdim=True)


class _Errors(Mapping[str, Tensor]):
    """Rounding errors (K, out, inputs) by weight site; made when they are asked for where there are very many."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._sites = {site.name: site for site in survey.network.weights}
        total = len(survey.bits) * int(survey.sizes[: survey.weight_groups].sum())
        self._all = total <= _KEPT
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self._all:
            return self._survey.all_errors[name]
        if self._last is None or self._last[0] != name:  # asked for again and again while a layer's gradient is there
            self._last = name, self._survey.errors(self._sites[name])
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def _signed(survey: Survey, taps: Taps, samples: int) -> Tensor:
    """Return what the errors of each weight group at each candidate do to the scalar, (n, G, K), float64."""
    rows = []
    for site in survey.network.weights:
        count = survey.rows(site).stop - survey.rows(site).start
        found = taps.signed.get(site.name)
        none = torch.zeros(samples, count, len(survey.bits), dtype=torch.float64)
        rows.append(none if found is None else found.double().cpu())
    return torch.cat(rows, dim=1)
