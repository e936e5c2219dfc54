"""From a survey and its damages to a problem: names, sizes, who reads what, and what was done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable, PowerLaw
from impq_opt.groups.interactions import Interactions
from impq_opt.measure.survey import Survey
from impq_opt.problem.problem import Problem
from impq_opt.tracing.sites import WeightSite
from impq_opt.types import BoolArray, IntArray

__all__ = ["assemble"]


def assemble(
    survey: Survey,
    damage: PowerLaw | DamageTable,
    *,
    metric: str,
    unit: str,
    provenance: Mapping[str, Any],
    unmeasured: BoolArray | None = None,
    interactions: Interactions | None = None,
) -> Problem:
    """Return the problem of the surveyed groups with the given damages."""
    reads, macs, also = _reads(survey)
    return Problem(
        names=survey.names,
        candidates=Candidates((survey.bits,)),
        damage=damage,
        interactions=interactions,
        sizes=survey.sizes,
        kinds=survey.kinds,
        ranges=survey.spans,
        macs=macs,
        reads=reads,
        also_reads=also if len(also) else None,
        lengths=_per_label(survey, [site.length for site in survey.network.weights], 0),
        steps=_steps(survey),
        ties=_ties(survey),
        unmeasured=unmeasured,
        stays=survey.network.stays,
        stored=_stored(survey),
        types=survey.types,
        metric=metric,
        damage_unit=unit,
        grids={site.name: spec for site in survey.network.weights if (spec := survey.grid(site).spec) != "mid-rise"},
        provenance=provenance,
    )


def _stored(survey: Survey) -> Fraction:
    """Return the bits of a weight in a group as the network stores it: the mean, where tensors differ."""
    elements = [math.prod(site.shape) for site in survey.network.weights]
    bits = (8 * survey.network.stored_type(site).itemsize for site in survey.network.weights)
    return Fraction(sum(n * b for n, b in zip(elements, bits, strict=True)), sum(elements))


def _per_label(survey: Survey, weights: list[int], activation: int) -> IntArray:
    values = np.array(weights + [activation] * len(survey.network.activations), dtype=np.int64)
    return values[survey.names.label_of]


def _reads(survey: Survey) -> tuple[IntArray, IntArray, IntArray]:
    """Return what each group reads (G,), its multiply-accumulates (G,), and further reads (E, 3).

    A weight is multiplied once per output position, so the multiply-accumulates of a layer are shared by size.
    """
    place = {site.node: survey.weight_groups + row for row, site in enumerate(survey.network.activations)}
    reads = np.full(len(survey), -1, dtype=np.int64)
    macs = np.zeros(len(survey), dtype=np.int64)
    also: list[IntArray] = []
    for label, site in enumerate(survey.network.weights):
        first, last = (int(survey.names.offsets[label + end]) for end in (0, 1))
        share = survey.sizes[first:last]
        for number, (source, count) in enumerate(_sources(site, place, survey.sizes).items()):
            part = share * count // int(share.sum())
            part[-1] += count - int(part.sum())
            if number == 0:
                reads[first:last], macs[first:last] = source, part
            else:
                also.append(np.stack([np.arange(first, last), np.full(last - first, source), part], axis=1))
    return reads, macs, np.concatenate(also) if also else np.empty((0, 3), dtype=np.int64)


def _sources(site: WeightSite, place: Mapping[str, int], sizes: IntArray) -> dict[int, int]:
    """Return the multiply-accumulates of a weight by what it reads; the network's input, -1, comes first."""
    counted: dict[int, int] = {}
    for use in site.uses:
        sources = [place[node] for node in use.reads] or [-1]
        # A concatenation is read in proportion to what each part brings.
        elements = [1] if sources == [-1] else [int(sizes[s]) for s in sources]
        counts = [use.macs * e // sum(elements) for e in elements]
        counts[0] += use.macs - sum(counts)
        for source, count in zip(sources, counts, strict=True):
            counted[source] = counted.get(source, 0) + count
    return dict(sorted(counted.items(), key=lambda item: item[0] != -1))


def _steps(survey: Survey) -> IntArray:
    steps = np.full((len(survey), 2), -1, dtype=np.int64)
    if survey.network.activations:
        steps[survey.weight_groups :] = [site.steps for site in survey.network.activations]
    return steps


def _ties(survey: Survey) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(survey.names.index_of(name) for name in tie) for tie in survey.network.ties)
