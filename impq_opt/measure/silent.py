"""Groups whose damage came out at exactly 0: those without an effect, and those that no gradient reaches.

Behind a sign, a rounding or a comparison the gradient is 0 whatever the tensor does to the logits: such a 0 is no
measurement. So noise as large as that of the fewest bits is put on the group, and the logits
are looked at. Where they change, the group's damage is unknown; where they do not, on all of the samples, its 0 is
what they say: weights that are all zero, kernels behind a rectifier that lets nothing through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.measure.grouping import Grouping, kernel_ranges
from impq_opt.measure.survey import Survey
from impq_opt.tracing.sites import WeightSite
from impq_opt.types import BoolArray

__all__ = ["SAMPLES", "unheard"]

SAMPLES = 64  # on which a group may show an effect
_BATCH = 16
# Passes that tell kernels of one layer apart; those left in a part that has an effect are taken to have one.
_PASSES = 32
# Changes of the logits below this share of the largest are the arithmetic's.
_ROUNDING = 1e-6


def unheard(survey: Survey, data: Dataset, zero: BoolArray, *, seed: int = 0) -> BoolArray:
    """Return which of the ``zero`` groups (G,) change the logits although no gradient reaches them.

    Groups whose weights are all 0 do not: their quantizer has no range, and leaves them 0.
    """
    heard = np.zeros(len(survey), dtype=bool)
    candidates = zero & (survey.spans > 0)
    if not candidates.any():
        return heard
    probe = _Probe(survey, data, seed)
    if not probe.changes(candidates):
        return heard
    mixed: list[BoolArray] = []
    for inside in _sites(survey):
        part = candidates & inside
        if not part.any() or not probe.changes(part):
            continue
        whole = bool((zero | (survey.spans == 0))[inside].all())  # no gradient reaches the layer at all
        if whole:
            heard |= part
        else:
            mixed.append(part)
    return heard | _told_apart(probe, mixed, len(survey))


def _sites(survey: Survey) -> Iterator[BoolArray]:
    """Yield which groups (G,) belong to each site."""
    of = survey.names.label_of
    for label in range(len(survey.names.labels)):
        yield of == label


def _told_apart(probe: _Probe, parts: list[BoolArray], count: int) -> BoolArray:
    """Return which groups have an effect, out of parts (G,) that each have one as a whole; by halving."""
    heard = np.zeros(count, dtype=bool)
    passes = 0
    while parts:
        part = parts.pop(0)
        groups = np.flatnonzero(part)
        if len(groups) == 1 or passes >= _PASSES:
            heard |= part
            continue
        first, second = part.copy(), part.copy()
        first[groups[len(groups) // 2 :]] = False
        second[groups[: len(groups) // 2]] = False
        passes += 1
        if not probe.changes(first):
            parts.append(second)  # it must be here
            continue
        parts.append(first)
        passes += 1
        if probe.changes(second):
            parts.append(second)
    return heard


class _Probe:
    """The logits of some samples, and whether noise on groups changes them."""

    def __init__(self, survey: Survey, data: Dataset, seed: int) -> None:
        self._survey, self._seed = survey, seed
        self._step = 2.0 ** -min(survey.bits)  # of a quantizer of the fewest bits, as a share of its range
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
        tensors = survey.network.tensors.values()
        self._place = next((tensor.device for tensor in tensors), torch.device("cpu"))
        self._batches = [
            prepare(data.rows(rows)[0], self._place) for rows in order.split(min(_BATCH, survey.estimator.batch))
        ]
        self._logits: list[Tensor] = []
        self._logits = [self._run(place) for place in range(len(self._batches))]
        finite = [logits[logits.isfinite()].abs() for logits in self._logits]
        self._rounding = _ROUNDING * max((float(part.max()) for part in finite if part.numel()), default=0.0)

    def changes(self, groups: BoolArray) -> bool:
        """Whether noise on ``groups`` (G,) changes the logits of any sample."""
        survey, network = self._survey, self._survey.network
        tensors: dict[str, Tensor] = {}
        for label, site in enumerate(network.weights):
            inside = groups[survey.names.offsets[label] : survey.names.offsets[label + 1]]
            if inside.any():
                noisy = self._noisy_weight(site, inside)
                tensors |= dict.fromkeys(network.weight_node(site), noisy)
        first = survey.weight_groups
        noisy_sites = {site.node: site.name for row, site in enumerate(network.activations) if groups[first + row]}
        return any(
            not torch.isclose(
                self._run(place, tensors, noisy_sites), logits, rtol=0, atol=self._rounding, equal_nan=True
            ).all()
            for place, logits in enumerate(self._logits)
        )

    @torch.no_grad()
    def _run(self, place: int, tensors: dict[str, Tensor] | None = None, noisy: dict[str, str] | None = None) -> Tensor:
        """Return logits (n, classes) of a batch, with noise on some activations, by node; whatever is random, alike."""
        generator = self._generator()

        def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
            return self._noisy_activation((noisy or {})[node], out, generator)

        devices = [self._place] if self._place.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self._seed)
            logits: Tensor = self._survey.network.run(
                self._batches[place], visit, tensors=tensors, watch=frozenset(noisy or {})
            )
        return logits.float()

    def _generator(self) -> torch.Generator:
        return torch.Generator(self._place).manual_seed(self._seed)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise between -1/2 and 1/2 of a step, for a range of 1."""
        return self._step * (torch.rand(like.shape, generator=generator, device=like.device) - 0.5)

    def _noisy_weight(self, site: WeightSite, inside: BoolArray) -> Tensor:
        weight = self._survey.network.weight_tensor(site).detach()
        spans = kernel_ranges(weight).to(weight.device).reshape(-1, *(1,) * (weight.ndim - 1))
        chosen = _elements(self._survey.grouping, site, inside).to(weight.device).reshape(weight.shape)
        noise = spans * self._noise(weight, self._generator()) * chosen
        return (weight.double() + noise).to(weight.dtype)

    def _noisy_activation(self, name: str, out: Tensor, generator: torch.Generator) -> Tensor:
        known = self._survey.ranges[name]
        noise = known.span * self._noise(out, generator)
        noisy = torch.where(out == 0, out, out + noise.to(out.dtype))  # 0 is a level of every such quantizer
        return noisy.clamp(-known.span / 2, known.span / 2) if known.signed else noisy.clamp(0, known.span)


def _elements(grouping: Grouping, site: WeightSite, inside: BoolArray) -> Tensor:
    """Return which elements (*site.shape) of a weight are in the groups ``inside`` (n,) of its site."""
    groups = torch.from_numpy(inside)
    if grouping.kind == "block":
        return groups.repeat_interleave(grouping.size)[: math.prod(site.shape)].reshape(site.shape)
    shape = grouping.shape(site)
    return groups.reshape(*shape, *(1,) * (len(site.shape) - len(shape))).expand(site.shape)
