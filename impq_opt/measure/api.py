"""Measuring in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

import impq_opt
from impq_opt.data.batch import prepare
from impq_opt.data.batches import Batches, tensors
from impq_opt.data.calling import STATES
from impq_opt.data.dataset import Dataset
from impq_opt.errors import DataError, OptionError
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import PowerLaw, zero_damages
from impq_opt.measure.assemble import assemble
from impq_opt.measure.estimators import Estimator
from impq_opt.measure.grouping import Grouping
from impq_opt.measure.metrics import Metric, load_metric
from impq_opt.measure.pool import Pool, look_at
from impq_opt.measure.premise import AUTO, check_candidates, grids_of
from impq_opt.measure.replicates import Chunks, Progress, Replicates, Sampling, replicate
from impq_opt.measure.silent import SAMPLES, unheard
from impq_opt.measure.survey import Survey, calibrate, types_of
from impq_opt.measure.sweeps import Sweep
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import few
from impq_opt.tracing.trace import trace
from impq_opt.types import BoolArray

__all__ = ["measure", "measure_each", "structure_of", "survey_of", "tensors"]

CALIBRATION = 512  # samples that tell the ranges of activations
# Decisions that go through a network together, where samples hold several: each has tens of thousands of classes.
_DECISIONS = 1024


@kept_memory()
def measure(
    network: nn.Module,
    data: Batches,
    *,
    groups: str | Grouping = "layer",
    metric: str = "impq",
    estimator: str | Estimator = "importance",
    sampling: Sampling | None = None,
    bits: Sequence[float] = range(1, 9),
    residual: str = "tie",
    grid: str | Mapping[str, str] = AUTO,
    assume_noise: bool = False,
    pins: Mapping[str, float | str] | None = None,
    weights_only: bool = False,
    without: Collection[str] = (),
    interactions: bool = False,
    device: str = "cpu",
    bf16: bool = False,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Problem:
    """Measure what every precision of every group does to a trained network's decisions, and declare the problem.

    Parameters
    ----------
    network : nn.Module
        Takes a tensor (n, ...), or several by position or by keyword; returns logits (n, classes), or ``logits`` of
        several decisions a sample (n, decisions, classes), as :func:`~impq_opt.data.calling.logits_of` finds them.
        Measured in eval mode, left as it was.
    data : Dataset, Tensor, mapping, torch data set, or iterable of batches
        What :func:`~impq_opt.data.batches.tensors` reads. An iterable is read until there are enough samples.
    groups : str or Grouping
        ``"layer"``, ``"kernel"``, ``"slice"``, ``"block"``, or ``"block:32"``.
    metric : str
        A name of :data:`~impq_opt.measure.metrics.METRICS`, options behind a colon: ``"kl:after=statistics"``.
    estimator : str or Estimator
        A name of :data:`~impq_opt.measure.estimators.ESTIMATORS`.
    sampling : Sampling, optional
        How many samples, when to stop, and the seed.
    bits : sequence of number
        Candidates of every group.
    residual : {"tie", "accumulate"}
        See :func:`~impq_opt.tracing.trace.trace`.
    grid : str or mapping of str to str
        How weights are rounded; the problem names it, so that quantizing does the same. A method of
        :data:`~impq_opt.quantize.methods.METHODS`, with options (``"zero:over=tensor"``), for all weights or by label.
        ``"auto"``: a grid with a zero level where many weights are exactly 0, ``mid-rise`` elsewhere.
    assume_noise : bool
        Take rounding errors for noise of variance ``step^2 / 12``, whatever they are. Otherwise weights whose errors
        are no noise are found, and have damages of the errors as they are.
    pins : mapping of str to number, optional
        Bits that groups keep, by name or pattern, such as ``{"kind:activation": 8}``; looked at before anything is
        measured.
    weights_only : bool
        Leave activations out of the problem: they stay in float.
    without : collection of str
        Names of parameters that are in no group and stay as they are, as embeddings often do.
    interactions : bool
        Measure what pairs of groups do together as well, by a metric that can (``kl``).
    device : str
    bf16 : bool
        Propagate in bfloat16; what that changes on the first chunk is measured and stored.
    checkpoint : Path, optional
        Where to keep finished chunks, so that an interrupted measurement resumes; removed at the end.
    progress : callable, optional
        Told chunks done, chunks at most and the relative error, after every round.
    tell : callable, optional
        Told at once each thing that seems wrong with the data, a sentence, all of which are in the provenance as
        ``data_notes``; and of very much work.
    provenance : dict, optional
        Further entries for the problem's provenance.

    Returns
    -------
    Problem
        With standard errors over independent chunks, ranges, what stays as it is, and in ``provenance`` what was done.
        A group that changes the logits and that no gradient reaches is unmeasured: it keeps its most bits.

    Raises
    ------
    DataError
        A network that is not a classifier or that no gradient goes through, logits that are not numbers or never
        differ, or data that are none or do not fit the network.
    OptionError
        An unknown metric, or one that measures no interactions where they are wanted.
    """
    chosen = load_metric(metric, **({"interactions": True} if interactions else {}))
    survey, dataset = _surveyed(
        network, data, [chosen], sampling or Sampling(), tell,
        groups=groups, estimator=estimator, bits=bits, residual=residual, grid=grid, assume_noise=assume_noise,
        device=device, weights_only=weights_only, without=without,
    )  # fmt: skip
    revision: dict[str, Any] = {"pins": pins, "weights_only": weights_only}
    if pins or weights_only:  # patterns that mean nothing are told before the work
        assemble(survey, PowerLaw(np.ones(len(survey))), metric=metric, unit="", provenance={}).revise(**revision)
    problem = _measured(
        survey, dataset, metric, chosen, sampling or Sampling(),
        bf16=bf16, checkpoint=checkpoint, progress=progress, provenance=provenance or {},
    )  # fmt: skip
    return problem.revise(**revision)


@kept_memory()
def measure_each(
    network: nn.Module,
    data: Batches,
    metrics: Sequence[str],
    *,
    sampling: Sampling | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> dict[str, Problem]:
    """Return a problem by each of several metrics, of the same groups and samples: the network is traced once for all.

    Parameters
    ----------
    network, data, sampling, tell
        As in :func:`measure`.
    metrics : sequence of str
    progress : callable, optional
        Told the metric, chunks done, and chunks at most.
    **options
        Of :func:`survey_of`.

    Raises
    ------
    DataError
        As :func:`measure`; what any of the metrics needs is said before the first is measured.
    """
    chosen = {name: load_metric(name) for name in metrics}
    survey, dataset = _surveyed(network, data, chosen.values(), sampling or Sampling(), tell, **options)

    def telling(metric: str) -> Progress | None:
        return None if progress is None else lambda done, total, _: progress(metric, done, total)

    return {
        name: _measured(survey, dataset, name, metric, sampling or Sampling(), progress=telling(name))
        for name, metric in chosen.items()
    }


def _surveyed(
    network: nn.Module,
    data: Batches,
    metrics: Iterable[Metric],
    sampling: Sampling,
    tell: Callable[[str], None] | None,
    **options: Any,
) -> tuple[Survey, Dataset]:
    """Return a survey of the network, and the data as it takes them, with the labels that a metric needs."""
    dataset = tensors(data, sampling.samples)
    needing = next((chosen for chosen in metrics if chosen.labels), None)
    labels = "" if needing is None else needing.unit
    dataset = fitted(network, dataset, rows=sampling.rows(dataset), labels=labels)
    told = tell or (lambda _: None)
    for note in dataset.notes:
        told(note)
    survey = survey_of(network, dataset, seed=sampling.seed, **options)
    if STATES in survey.network.logits_at and not all(getattr(metric, "states", False) for metric in metrics):
        raise OptionError(
            "goes with decisions, and the network gives states, not decisions", where="metric",
            hint="output-error measures how far they move",
        )  # fmt: skip
    for metric in metrics:
        if isinstance(metric, Sweep) and (work := metric.announced(survey, len(sampling.rows(dataset)))):
            told(work)
    return survey, dataset


def _measured(
    survey: Survey,
    dataset: Dataset,
    metric: str,
    chosen: Metric,
    sampling: Sampling,
    *,
    bf16: bool = False,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> Problem:
    """Return the problem of surveyed groups by one metric, ``chosen``, that is called ``metric``."""
    chunks = chunks_of(survey, dataset, chosen, sampling)
    columns = chosen.columns(survey)
    grids = [method.spec for method in survey.grids.values()]
    identity = f"{metric}|{survey.grouping}|{survey.estimator}|{survey.bits}|{bf16}|{_digest(survey)}"
    identity += "|weights" * survey.weights_only
    special = survey.assume_noise or set(grids) != {"mid-rise"}
    identity += f"|{grids}|{survey.assume_noise}" if special else ""
    result = replicate(
        survey, chunks, chosen,
        columns=columns, identity=identity, checkpoint=checkpoint, progress=progress, autocast=bf16,
    )  # fmt: skip
    law = chosen.law(survey, result.mean, result.stderr)
    zero = zero_damages(law, Candidates((survey.bits,)))
    zero[survey.weight_groups :] &= not survey.weights_only
    if zero.any():
        zero &= ~survey.exact  # rounding does nothing to these: no damage is known without a gradient
    unmeasured = unheard(survey, dataset, zero, seed=sampling.seed)
    if not result.mean.any():
        raise _nothing_measured(bool(unmeasured.any()))
    record = _record(survey, chunks, result, metric)
    if getattr(chosen, "noise", False):
        record["noise"] = _noise(survey)
    if hasattr(chosen, "record"):
        record |= chosen.record(survey, result.mean)
    if zero.any():
        record["zero_damages"] = _zeros(survey, zero, unmeasured, len(dataset))
    if bf16:
        record["bf16_bias"] = _bias(survey, dataset, chosen, sampling, columns)
    problem = assemble(
        survey, law if result.chunks > 1 else replace(law, stderr=None),  # one replicate tells nothing of its error
        metric=metric, unit=chosen.unit, provenance=record | dict(provenance), unmeasured=unmeasured,
        interactions=chosen.together(survey, result.mean, result.stderr) if hasattr(chosen, "together") else None,
    )  # fmt: skip
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return problem


def survey_of(
    network: nn.Module,
    data: Dataset,
    *,
    groups: str | Grouping = "layer",
    estimator: str | Estimator = "importance",
    bits: Sequence[float] = range(1, 9),
    residual: str = "tie",
    grid: str | Mapping[str, str] = AUTO,
    assume_noise: bool = False,
    weights_only: bool = False,
    without: Collection[str] = (),
    device: str = "cpu",
    seed: int = 0,
) -> Survey:
    """Trace a network and find the ranges of its activations on the first :data:`CALIBRATION` samples.

    Raises
    ------
    OptionError
        A grid that has not all candidates, or whose levels say nothing of a network that was not trained with it.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:CALIBRATION]
    example, _ = data.rows(order[:2])
    home = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    traced = trace(network, prepare(example, home), residual=residual, without=without)
    grids = grids_of({site.name: traced.weight_tensor(site) for site in traced.weights}, grid)
    check_candidates(grids, bits)
    place = torch.device(device)
    traced.widen()
    traced.to(place)
    if weights_only:  # ranges of activations are needed by nobody
        order = order[:2]
    size = _together(traced.decisions, 32)
    batches = (prepare(data.rows(rows)[0], place) for rows in order.split(size))
    chosen = estimator if isinstance(estimator, Estimator) else Estimator(estimator)
    return Survey(
        traced,
        groups if isinstance(groups, Grouping) else Grouping.read(groups),
        replace(chosen, batch=_together(traced.decisions, chosen.batch)),
        calibrate(traced, batches),
        tuple(float(b) for b in bits),
        grids,
        assume_noise,
        types_of(network, traced),
        weights_only,
    )


def _together(decisions: int, most: int) -> int:
    """Return how many samples of so many decisions go through the network together, at most ``most``."""
    return most if decisions == 1 else max(1, min(most, _DECISIONS // decisions))


def structure_of(network: nn.Module, data: Dataset, **options: Any) -> Problem:
    """Return the problem of a network of which nothing is measured: groups, ranges and costs, and no damage.

    It tells where quantizers sit and what precisions cost, for networks that train with given ones.

    Parameters
    ----------
    network : nn.Module
    data : Dataset
    **options
        Of :func:`survey_of`.
    """
    survey = survey_of(network, data, **options)
    signed = [site.name for site in survey.network.activations if survey.ranges[site.name].signed]
    told = {"source": "not measured", "input": survey.network.module.takes, "signed": signed}
    zeros = PowerLaw(np.zeros(len(survey)))
    return assemble(survey, zeros, metric="none", unit="none", provenance=told)


def chunks_of(survey: Survey, data: Dataset, metric: Metric, sampling: Sampling) -> Chunks:
    """Return the pool's chunks; where the metric adds up margins, after a look at those of all samples."""
    rows = sampling.rows(data)
    importance = metric.margins and survey.estimator.name == "importance"
    if importance or (metric.margins and sampling.concede):
        batch = _together(survey.network.decisions, 32)
        half = sampling.look == "bfloat16"
        pool = look_at(survey.network, data, rows, concede=sampling.concede, batch=batch, bf16=half)
    else:
        pool = Pool(rows, torch.empty(0), torch.zeros(len(rows), dtype=torch.bool))
    least = metric.least(survey, len(rows)) if isinstance(metric, Sweep) else 1
    return Chunks(data, pool, sampling, survey.estimator.draws if importance else None, least)


def _record(survey: Survey, chunks: Chunks, result: Replicates, metric: str) -> dict[str, Any]:
    """Return what was done, as plain values that a problem file can hold."""
    rules = [survey.ranges[site.name].rule for site in survey.network.activations]
    pool, sampling = chunks.pool, chunks.sampling
    special = any(":" in method.spec for method in survey.grids.values())
    record: dict[str, Any] = {
        "source": "measured",
        "metric": metric,
        "data": chunks.data.name,
        "data_digest": chunks.data.digest(),
        "samples": len(pool),
        "propagated": sum(len(chunks.places(chunk)) for chunk in range(result.chunks)),
        "chunks": result.chunks,
        "seed": sampling.seed,
        "conceded": sampling.concede if pool.conceded.any() else 0.0,
        "estimator": survey.estimator.name,
        "estimator_options": {k: v for k, v in asdict(survey.estimator).items() if k != "name"},
        "groups": survey.grouping.kind if survey.grouping.kind != "block" else f"block of {survey.grouping.size}",
        "weight_ranges": "as the grids say" if special else "2 max |w| of each output kernel",
        "activation_ranges": f"{rules.count('batch-norm')} by batch-norm (beta + 6 |gamma|), "
        + (f"{rules.count('rectifier')} by where their rectifier ends, " if "rectifier" in rules else "")
        + f"{rules.count('measured')} by the largest of {min(CALIBRATION, len(chunks.data))} samples",
        "input": survey.network.module.takes,
        "signed": [site.name for site in survey.network.activations if survey.ranges[site.name].signed],
        "classes": survey.network.classes,
        **({"decisions": survey.network.decisions} if survey.network.decisions > 1 else {}),
        "made_with": f"impq-opt {impq_opt.__version__}, torch {torch.__version__}",
    }
    if chunks.data.notes:
        record["data_notes"] = list(chunks.data.notes)
    if result.chunks > 1:
        record["relative_error"] = _errors(chunks, result)
    if len(pool.tail):
        record["tail"] = {
            "of_the_top_1_percent": pool.tail_share(0.01),
            "of_the_top_sample": pool.tail_share(0),
            "ties": pool.ties,
        }
    if survey.network.stored:
        names = sorted({str(kind).removeprefix("torch.") for kind in survey.network.stored.values()})
        record["computed_in"] = f"float32, from parameters in {' and '.join(names)}"
    if sampling.look != Sampling().look:
        record["look"] = sampling.look
    if survey.network.logits_at:
        record["logits"] = survey.network.logits_at
    if survey.network.skipped:
        record["not_measured"] = list(survey.network.skipped)
    return record


def _noise(survey: Survey) -> dict[str, Any]:
    """Return for how many weight groups rounding errors are noise, and why not for those of which labels."""
    unlike = sum(survey.rows(site).stop - survey.rows(site).start for site in survey.unlike_noise)
    record: dict[str, Any] = {
        "premise": "assumed" if survey.assume_noise else "rounding errors are noise of mean 0 and variance step^2/12",
        "holds": survey.weight_groups - unlike,
        "of": survey.weight_groups,
    }
    if unlike:
        record["errors_as_they_are"] = {site.name: survey.premises[site.name].reason for site in survey.unlike_noise}
    return record


def _nothing_measured(heard: bool) -> DataError:
    if heard:
        return DataError(
            "the logits depend on its weights, and no gradient reaches any of them",
            where="network",
            hint="is there a sign, a rounding or a comparison on every way to the logits?",
        )
    return DataError(
        "no group has any effect on any decision",
        where="network",
        hint="do its logits depend on its weights, and differ between classes?",
    )


def _zeros(survey: Survey, zero: BoolArray, unmeasured: BoolArray, samples: int) -> dict[str, Any]:
    """Return what is known of the groups whose damage came out at exactly 0."""
    record: dict[str, Any] = {"meaning": "groups whose damage came out at exactly 0"}
    for key, groups in (("no_gradient", unmeasured), ("no_effect", zero & ~unmeasured)):
        if groups.any():
            record[key] = {"groups": int(groups.sum()), "such_as": few(survey.names, np.flatnonzero(groups))}
    return record | {"samples": min(samples, SAMPLES)}


def _errors(chunks: Chunks, result: Replicates) -> dict[str, Any]:
    sampling = chunks.sampling
    errors: dict[str, Any] = {
        "median": result.relative_error(0.5),
        "p95": result.relative_error(0.95),
        "meaning": "quantiles over groups of the standard error, over independent chunks, of the mean over samples "
        "like these",
    }
    if sampling.relative_error is not None:
        reached = result.relative_error(sampling.quantile)
        errors |= {"wanted": sampling.relative_error, "quantile": sampling.quantile, "reached": reached}
    return errors


def _bias(survey: Survey, data: Dataset, metric: Any, sampling: Sampling, columns: int) -> dict[str, float]:
    """Compare bfloat16 with float32 on the first chunk, same seeds: relative differences over groups."""
    chunks = chunks_of(survey, data, metric, replace(sampling, relative_error=None))
    chunks.count = 1
    half, full = (
        replicate(survey, chunks, metric, columns=columns, autocast=autocast).mean for autocast in (True, False)
    )
    alive = full > 0
    relative = (half[alive] - full[alive]) / full[alive]
    return {"median": float(np.median(relative)), "largest": float(np.abs(relative).max())}


def _digest(survey: Survey) -> str:
    state = hashlib.sha256()
    for name, tensor in survey.network.tensors.items():
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return state.hexdigest()
