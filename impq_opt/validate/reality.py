"""The bound held against reality: how often a really quantized network decides differently from the float network.

The bound is over random rounding noise, a union over classes and Chebyshev's inequality; a network is rounded once,
not at random. So the two are different things, and are reported side by side: the bound of the problem, what is
measured, with a confidence interval, and, where asked, the same bound and estimates on the samples at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.data.parts import ALL, SPLITS
from impq_opt.errors import DataError, OptionError
from impq_opt.measure.estimators import Estimator
from impq_opt.measure.grouping import Grouping
from impq_opt.measure.survey import ActivationRange, Survey
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.quantize import (
    activation_quantizers,
    choice_of_codes,
    code_bits,
    load_method,
    of_other_weights,
    quantize,
    quantize_traced,
    state_of,
    unpack,
    unpack_into,
)
from impq_opt.quantize.methods import FLOAT_BITS
from impq_opt.tracing.batches import batch_size
from impq_opt.tracing.trace import trace
from impq_opt.types import FloatArray, IntArray
from impq_opt.validate.on_samples import OnSamples, bounds_on_samples
from impq_opt.validate.sweep import Logits, Progress, counter, decide, deciding, together
from impq_opt.validate.windows import Language, Windows, held_against, language_of, mean_of

Held = npt.ArrayLike | Path | Allocation

__all__ = ["Progress", "Reality", "Validation", "interval"]


@dataclass(frozen=True)
class Reality:
    """One allocation, on samples.

    Parameters
    ----------
    bound : float
        The problem's own: total damage, plus the share of samples that were conceded when it was measured.
    here, clipped, gaussian : float, optional
        On these samples, rounding errors taken for noise of variance step^2 / 12: the bound as it stands; the mean of
        min(1, bound of the sample); the mean over samples of the Gaussian tails of its margins, each sample at most 1.
        None where not asked for, and for groups finer than kernels.
    mismatch, low, high : float
        Share of samples decided differently, and its Clopper-Pearson interval.
    accuracy, float_accuracy : float, optional
        Where there are labels.
    samples, looked_at : int
        Samples for the mismatch, and for the bounds on samples.
    language : Language, optional
        What is told of language models, whose samples hold several decisions. Their mismatch is the share of tokens,
        and its interval is over windows.
    """

    bound: float
    here: float | None
    clipped: float | None
    gaussian: float | None
    mismatch: float
    low: float
    high: float
    accuracy: float | None
    float_accuracy: float | None
    samples: int
    looked_at: int
    language: Language | None = None


class Validation:
    """A network, a problem that was measured on it, and data, which should be others than those.

    Parameters
    ----------
    network : nn.Module
    problem : Problem
    data : Dataset
        Samples that the problem was not measured on, and the network not trained on; :attr:`origin` says what is known.
    samples : int
        How many of them are looked at one margin at a time, for the bounds on samples; ten passes each. All serve the
        mismatch.
    confidence : float
        Of the interval of the mismatch.

    Attributes
    ----------
    notes : tuple of str
        What seems wrong with the data, and that the problem was measured at other weights, a sentence each.

    Raises
    ------
    DataError
        The problem's groups are not those of this network.
    """

    @kept_memory()
    def __init__(
        self, network: nn.Module, problem: Problem, data: Dataset, *, samples: int = 0, confidence: float = 0.95
    ) -> None:
        data = fitted(network, data)
        self.network, self.problem, self.data, self.confidence = network, problem, data, confidence
        example, _ = data.rows(torch.arange(min(2, len(data))))
        self.device = next(network.parameters()).device
        self._example = prepare(example, self.device)
        self._traced = trace(network, self._example)
        self._batch = batch_size(self._traced.graph)
        checked = self._made(_possible(problem))  # raises where the problem is not this network's
        other = of_other_weights(problem, state_of(checked, latent=True))
        self.notes = (*data.notes, *([other] if other else ()))
        if samples and self._traced.decisions > 1:
            raise OptionError("bounds are told of samples of one decision", where="samples", value=samples)
        self._survey = self._surveyed(checked) if samples else None
        self.samples = min(samples, len(data)) if self._survey else 0
        self._float: tuple[Tensor, Tensor | None] | None = None

    @property
    def origin(self) -> str:
        """Which samples these are: the very ones that were measured, of another part of those data, or others."""
        measured, name = self.problem.provenance, self.data.name
        if measured.get("data_digest") == self.data.digest():
            return f"samples of {name}, the very ones that the problem was measured on"
        origin, _, part = str(measured.get("data", "")).rpartition("/")
        own, _, other = name.rpartition("/")
        apart = origin == own and {part, other} <= set(SPLITS) and other not in (part, "train")
        if origin == own and part != other and ALL in (part, other):
            return f"samples of {name}, which share some with {measured['data']}, where the problem was measured"
        return f"{'held-out samples' if apart else 'samples'} of {name}"

    def quantized(self, allocation: Held) -> nn.Module:
        """Return the network that decides for an allocation, or that a packed file holds, in eval mode.

        It is what :func:`impq_opt.quantize.pack` writes for the allocation, or what the file was written from.
        """
        if isinstance(allocation, Path):
            return unpack_into(self.network, allocation, example=self._example).eval()
        return self._made(code_bits(self.problem, self.choice(allocation)))

    def _made(self, codes: npt.NDArray[np.generic]) -> nn.Module:
        """Return the network with codes of so many bits (G,), in eval mode."""
        if self.problem.weights().all():
            return quantize(self.network, self.problem, codes).eval()
        return quantize_traced(self._traced, self.problem, codes).eval()

    def hold(self, allocation: Held) -> Reality:
        """Quantize as allocated, or take a packed file, and compare."""
        return self.hold_all([allocation])[0]

    @kept_memory()
    def hold_all(self, allocations: Sequence[Held], progress: Progress | None = None) -> list[Reality]:
        """Compare every allocation: the data are read once for as many networks as fit into memory.

        Parameters
        ----------
        allocations : sequence of Allocation, array (G,) or Path
            Of the problem's groups; bits, where they tell its candidates apart; or a file that
            :func:`impq_opt.quantize.pack` wrote, whose bits are those of its groups.
        progress : callable, optional
            Told what is going on, how much of it is done, and how much there is.

        Raises
        ------
        DataError
            Not one precision per group, or none of its candidates; a packed file of another network.
        FileError
            A packed file that cannot be read.
        """
        choices = [self.choice(allocation) for allocation in allocations]
        bounds = [self._bound(choice) for choice in choices]
        if self._traced.decisions > 1:
            return self._by_window(allocations, bounds, progress)
        decisions = self._decisions(allocations, progress)
        codes = [code_bits(self.problem, choice).astype(np.float64) for choice in choices]
        looks = self._looks(codes, progress) if self.samples and codes else [None] * len(codes)
        return [self._reality(*row) for row in zip(bounds, decisions, looks, strict=True)]

    def bits(self, allocation: Held) -> FloatArray:
        """Return the bits (G,) of an allocation or of a packed file, in the order of the problem's groups.

        They are those of candidates: of a problem that was prepared for a target with scales in them.

        Raises
        ------
        DataError
            As of :meth:`choice`.
        """
        return self.problem.candidates.bits(self.choice(allocation)).astype(np.float64)

    def choice(self, allocation: Held) -> IntArray:
        """Return the candidates (G,), by their places, of an allocation or of a packed file.

        Raises
        ------
        DataError
            Where there is not one precision per group, or one is no candidate.
        """
        problem = self.problem
        if isinstance(allocation, Path):
            codes = self._packed(allocation)
            columns, said = choice_of_codes(problem, codes), codes
        elif isinstance(allocation, Allocation):
            columns = allocation._need()
            said = np.asarray(allocation.bits, dtype=np.float64)
        else:
            said = np.asarray(allocation, dtype=np.float64)
            columns = problem.candidates.columns(said) if said.shape == (len(problem),) else said.astype(np.int64)
        if columns.shape != (len(problem),):
            raise DataError("must have one precision per group", where="allocation", value=columns.shape)
        if (columns < 0).any():
            group = int((columns < 0).argmax())
            offered = ", ".join(self._offered(group, codes=isinstance(allocation, Path)))
            raise DataError(
                "is no candidate of the group",
                where=f"{allocation if isinstance(allocation, Path) else 'allocation'}: {problem.names[group]}",
                value=float(said[group]),
                hint=f"it may take {offered}",
            )
        return columns

    def _packed(self, file: Path) -> FloatArray:
        """Return the bits (G,) of the codes of each group in a packed file; 32 where it has a group in float."""
        held = unpack(file)
        known = {name.removesuffix(".weight"): bits for name, bits in held.bits.items()}
        known |= {a.label: np.array([a.bits]) for a in held.activations}
        names, parts = self.problem.names, []
        for label, count in zip(names.labels, names.counts.tolist(), strict=True):
            part = known.pop(label.removesuffix(".weight"), None)
            part = np.full(count, FLOAT_BITS) if part is None else part
            if len(part) != count:
                raise DataError(
                    "has not the groups of the problem",
                    where=f"{file}: {label}",
                    value=len(part),
                    hint=f"the problem has {count} there; was it packed by another allocation's problem?",
                )
            parts.append(part)
        if known:
            raise DataError(
                "is quantized in the file and no group of the problem", where=str(file), value=next(iter(known))
            )
        return np.concatenate(parts).astype(np.float64)

    def _offered(self, group: int, *, codes: bool) -> list[str]:
        """Return the bits that a group may have, or those of their codes."""
        widths = self.problem.candidates.of(group)
        if codes:
            places = np.zeros((len(widths), len(self.problem)), dtype=np.int64)
            places[:, group] = np.arange(len(widths))
            widths = tuple(float(code_bits(self.problem, place)[group]) for place in places)
        return list(dict.fromkeys(f"{bits:g}" for bits in widths))

    def _reality(self, bound: float, decisions: Tensor, look: OnSamples | None) -> Reality:
        assert self._float is not None
        before, labels = self._float
        wrong = int((decisions != before).sum())
        low, high = interval(wrong, len(decisions), self.confidence)
        right = [None if labels is None else float((d == labels).double().mean()) for d in (decisions, before)]
        here, clipped, gaussian = look or (None, None, None)
        return Reality(
            bound=bound,
            here=here,
            clipped=clipped,
            gaussian=gaussian,
            mismatch=wrong / len(decisions),
            low=low,
            high=high,
            accuracy=right[0],
            float_accuracy=right[1],
            samples=len(decisions),
            looked_at=self.samples,
        )

    def _bound(self, columns: IntArray) -> float:
        problem = self.problem
        damage = problem.damage.chosen(problem.candidates, columns) + problem.interaction_shares(columns)
        return float(damage.sum()) + problem.conceded

    # -- running -------------------------------------------------------------------------------------------------

    def _decisions(self, allocations: Sequence[Held], progress: Progress | None) -> list[Tensor]:
        """Return the decisions (n,) of each allocation's network; the float network decides in the first sweep."""
        count = together(2 * 4 * int(self.problem.sizes[self.problem.weights()].sum()))  # as they were, and rounded
        decided = counter("decisions", progress, len(self.data) * (len(allocations) + (self._float is None)))
        decisions: list[Tensor] = []
        for start in range(0, len(allocations), count):
            networks = [deciding(self.quantized(some)) for some in allocations[start : start + count]]
            before: list[Logits] = [self._traced.run] if self._float is None else []
            made, labels = decide([*before, *networks], self.data, self.device, self._batch, decided)
            if before:
                self._float = made[0], labels
            decisions += made[len(before) :]
        return decisions

    def _by_window(self, allocations: Sequence[Held], bounds: list[float], progress: Progress | None) -> list[Reality]:
        """Return what is told of language models; the float network runs in each sweep, for its logits."""
        count = together(2 * 4 * int(self.problem.sizes[self.problem.weights()].sum()))
        starts = range(0, len(allocations), count)
        decided = counter("windows", progress, len(self.data) * (len(allocations) + len(starts)))
        found: list[Windows] = []
        for start in starts:
            networks = [deciding(self.quantized(some)) for some in allocations[start : start + count]]
            before, held = held_against(
                self._traced.run, networks, self.data, self.device, self._batch, self._traced.decisions, decided
            )
            found += held
        realities = []
        for bound, own in zip(bounds, found, strict=True):
            wrong = mean_of(own.wrong, self.confidence)
            realities.append(
                Reality(
                    bound=bound,
                    here=None,
                    clipped=None,
                    gaussian=None,
                    mismatch=wrong.value,
                    low=max(0.0, wrong.low),
                    high=min(1.0, wrong.high),
                    accuracy=None,
                    float_accuracy=None,
                    samples=len(self.data),
                    looked_at=0,
                    language=language_of(before, own, found[0], self.confidence),
                )
            )
        return realities

    # -- bounds on samples ---------------------------------------------------------------------------------------

    def _surveyed(self, quantized: nn.Module) -> Survey | None:
        """Return the problem's groups where they are layers or kernels, with the ranges of the quantizers."""
        shapes = dict(zip(self.problem.names.labels, self.problem.names.shapes, strict=True))
        part = copy.copy(self._traced)
        if part.is_half:  # whose gradients and margins need more than that; it decides as it is
            part = trace(self.network, self._example)
            part.widen()
        part.weights = tuple(site for site in part.weights if site.name in shapes)
        part.activations = tuple(site for site in part.activations if site.name in shapes)
        whole = all(shapes[site.name] == () for site in part.weights)
        ranges = {
            name: ActivationRange(quantizer.span, quantizer.signed, "problem")
            for name, quantizer in activation_quantizers(quantized).items()
        }
        grids = {site.name: load_method(self.problem.grid(site.name)) for site in part.weights}
        survey = Survey(part, Grouping("layer" if whole else "kernel"), Estimator(), ranges, grids=grids)
        return survey if sorted(survey.names) == sorted(self.problem.names) else None

    def _looks(self, widths: list[FloatArray], progress: Progress | None) -> list[OnSamples]:
        survey = self._survey
        assert survey is not None
        place = np.array([self.problem.names.index_of(name) for name in survey.names])
        looked_at = counter("bounds on samples", progress, self.samples)
        ordered = [bits[place] for bits in widths]
        return bounds_on_samples(survey, self.data, torch.arange(self.samples), ordered, self.device, looked_at)


def _possible(problem: Problem) -> FloatArray:
    """Return precisions (G,) that the methods of a problem have: 8 bits, or their most where that is less."""
    most = [min(8.0, *load_method(problem.grid(label)).widths[-1:]) for label in problem.names.labels]
    return np.repeat(most, problem.names.counts)


def interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share: it covers the truth at least as often as it says."""
    from scipy.stats import beta

    tail_share = (1 - confidence) / 2
    low = float(beta.ppf(tail_share, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail_share, count + 1, total - count)) if count < total else 1.0
    return low, high
