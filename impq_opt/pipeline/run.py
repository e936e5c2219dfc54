"""From a trained network to a folder with the quantized one."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.calibrate import drawn
from impq_opt.data.batches import Batches, tensors
from impq_opt.data.dataset import Dataset
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import AllocationError, FileError, OptionError
from impq_opt.exchange import writer_of
from impq_opt.files import load_allocation, load_problem, save_allocation, save_problem
from impq_opt.measure import Sampling, measure, structure_of
from impq_opt.measure.metrics import load_metric
from impq_opt.measure.sweeps import Sweep
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.networks.huggingface import is_huggingface
from impq_opt.pipeline.checkpoint import save_checkpoint, save_rounded
from impq_opt.pipeline.differences import Difference, difference
from impq_opt.pipeline.loss import cheapest, crossing
from impq_opt.pipeline.plan import Plan
from impq_opt.pipeline.program import program_bytes
from impq_opt.pipeline.record import RESULT, Judged, Outcome, read_outcome
from impq_opt.pipeline.workshop import Made, Workshop
from impq_opt.problem.limits import read_limit
from impq_opt.problem.problem import Problem
from impq_opt.report import Report, render_page
from impq_opt.tracing.batches import batch_size
from impq_opt.validate.sweep import Progress, counter, decide, deciding
from impq_opt.validate.windows import Windows, held_against, language_of

__all__ = ["quantize_network"]

PROBLEM, ALLOCATION, PACKED = "problem.toml", "allocation.json", "network.safetensors"
PROGRAM, REPORT, ASKED, CHECKPOINT = "network.pt2", "report.html", "asked.json", "checkpoint"
_STEP = 0.25  # bits between the sizes that are tried for a loss of accuracy
_CHOOSING = 2048  # samples that tell where such a size is likely to be
_SWEPT = 128  # samples of metrics that run the network for each group and candidate
_CONCEDED = 0.005  # share of samples given up where a bound is asked for: without, near-ties make any bound infeasible


@kept_memory()
def quantize_network(
    network: nn.Module,
    data: Batches,
    held_out: Batches,
    plan: Plan,
    folder: str | Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Outcome:
    """Measure, allocate, calibrate, judge and write; stopped at any time, the same call goes on.

    Parameters
    ----------
    network : nn.Module
        Trained, in float; left as it is.
    data : Dataset, Tensor, mapping, torch data set, or iterable of batches
        To measure and calibrate on; labels are looked at for a loss of accuracy alone.
    held_out : likewise
        To judge by: other samples.
    plan : Plan
        The goal, and the choices on the way to it.
    folder : path
        Gets the problem, the allocation, the packed network (``network.safetensors``), the same as a program of
        ``torch.export`` (``network.pt2``), a report and the record of it all (``result.json``).
    device : str
        Where to compute.
    progress : callable, optional
        Told what is going on, how much of it is done, and how much there is.
    tell : callable, optional
        Told at once what seems wrong with the data, a sentence each.
    provenance : dict, optional
        Further entries for the problem's provenance.

    Raises
    ------
    AllocationError
        Nothing keeps the goal: the sentence says what the least is.
    DataError
        Data that do not fit the network, or have no labels where a loss of accuracy is asked for.
    FileError
        The folder holds another run, or cannot be written.
    """
    where = Path(folder)
    labels = "" if plan.accuracy_loss is None else "a loss of accuracy"
    seen, judging = (fitted(network, tensors(part, None), labels=labels) for part in (data, held_out))
    _begin(where, plan, network, seen, judging)
    if (where / RESULT).exists():  # the last file of all
        return read_outcome(where, load_allocation(where / ALLOCATION, load_problem(where / PROBLEM)))
    began = time.process_time()
    problem = _problem(network, seen, plan, where, device, progress, tell, provenance)
    placed = copy.deepcopy(network).to(device)
    shop = Workshop(placed, problem, seen, plan, device=device, progress=progress)
    shop.seconds["measuring"] = time.process_time() - began
    judge = _Judge(shop, judging, progress)
    made, most, reason = _reached(shop, judge)
    uniform = shop.uniform(most)
    chosen, name = made, "allocated"
    if uniform is not None and made.calibrated.after.worse_than(uniform.calibrated.after):
        chosen, name = uniform, _uniform_name(uniform)
    outcome = _outcome(shop, judge, made, uniform, chosen, name, reason, where)
    _write(where, shop, chosen, outcome)
    return outcome


# -- the folder ------------------------------------------------------------------------------------------------------


def _begin(where: Path, plan: Plan, network: nn.Module, seen: Dataset, judging: Dataset) -> None:
    """Make the folder, or hold what it was made for against what is asked."""
    parts = {"network": _digest(network), "data": seen.digest(), "held_out": judging.digest()}
    asked = json.dumps(plan.to_dict() | parts, default=list)
    try:
        where.mkdir(parents=True, exist_ok=True)
        known = (where / ASKED).read_text() if (where / ASKED).exists() else ""
        if not known and any(where.iterdir()):
            raise FileError("is a folder of something else", where=str(where), hint="name a new one")
        if known and known != asked:
            others = [key for key, value in json.loads(asked).items() if json.loads(known).get(key) != value]
            raise FileError(
                "holds a run that was asked for something else", where=str(where), value=", ".join(others),
                hint="name another folder",
            )  # fmt: skip
        atomic_write(where / ASKED, asked.encode())
    except OSError as error:
        raise FileError(f"cannot be made: {error.strerror}", where=str(where)) from None


def _digest(network: nn.Module) -> str:
    """Return what tells weights from others."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        total.update(name.encode())
        total.update(
            np.ascontiguousarray(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).tobytes()
        )
    return total.hexdigest()


def _problem(
    network: nn.Module,
    data: Dataset,
    plan: Plan,
    where: Path,
    device: str,
    progress: Progress | None,
    tell: Callable[[str], None] | None,
    provenance: dict[str, Any] | None,
) -> Problem:
    """Return the problem of the folder, measured unless it is there."""
    if (where / PROBLEM).exists():
        problem = load_problem(where / PROBLEM)
    else:
        how: dict[str, Any] = {"groups": plan.groups, "grid": plan.grid, "bits": plan.candidates, "device": device}
        if plan.limits:  # what is wrong with them is told before the work
            _check_limits(structure_of(network, data, **how), plan)
        problem = measure(
            network, data,
            metric=plan.metric, interactions=plan.interactions, sampling=_sampling(plan), **how,
            weights_only=plan.activation_bits is None, without=plan.without,
            pins=None if plan.activation_bits is None else {"kind:activation": plan.activation_bits},
            checkpoint=where / "problem.partial", tell=tell, provenance=provenance,
            progress=None if progress is None else lambda done, total, _: progress("measuring", done, total),
        )  # fmt: skip
        if plan.target:
            problem = writer_of(plan.target).prepare(problem)
        save_problem(problem, where / PROBLEM)
    return problem


def _check_limits(problem: Problem, plan: Plan) -> None:
    for name, text in plan.limits.items():
        read_limit(problem, name, text, f"limits: {name}")


def _sampling(plan: Plan) -> Sampling:
    """Return how samples are drawn; a pass for each group and candidate tells as much of fewer of them."""
    metric = load_metric(plan.metric)
    samples = min(plan.samples, _SWEPT) if isinstance(metric, Sweep) else plan.samples
    return Sampling(samples=samples, seed=plan.seed, concede=_CONCEDED if metric.margins else 0.0)


# -- the goal --------------------------------------------------------------------------------------------------------


class _Judge:
    """What networks decide on samples that nothing was measured or chosen on."""

    def __init__(self, shop: Workshop, data: Dataset, progress: Progress | None) -> None:
        self.shop, self.data, self._progress = shop, data, progress
        place = torch.device(shop.device)
        self._place = place
        self._traced = shop.reference.network
        self._batch = batch_size(self._traced.graph)
        self.decisions = cache(self._decisions)
        if self.language and shop.plan.accuracy_loss is not None:
            raise OptionError("is of samples of one decision", where="accuracy_loss", hint="give a size or bits")

    @property
    def language(self) -> bool:
        """Whether samples hold several decisions, as windows of a text do."""
        return self._traced.decisions > 1

    def windows(self, networks: Sequence[Made]) -> tuple[Windows, list[Windows]]:
        """Return what the float network and others do in each window."""
        decided = counter("judging", self._progress, len(self.data) * (len(networks) + 1))
        deciders = [deciding(made.network) for made in networks]
        return held_against(
            self._traced.run, deciders, self.data, self._place, self._batch, self._traced.decisions, decided
        )

    def _decisions(self, made: Made | None, rows: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return decisions (n,) and labels; of the float network where none is given, on ``rows`` of its own data."""
        data = self._own if rows else self.data
        decided = counter("judging", self._progress, len(data))
        run = self._traced.run if made is None else deciding(made.network)
        found, labels = decide([run], data, self._place, self._batch, decided)
        return found[0], labels

    @property
    def _own(self) -> Dataset:
        """Samples of the data that calibration has not seen, to find out roughly where a loss is reached."""
        plan, data = self.shop.plan, self.shop.data
        rows = drawn(data, plan.samples, plan.seed).rest[:_CHOOSING]
        return data.subset(rows if len(rows) > 1 else torch.arange(len(data)))

    def right(self, made: Made | None, *, own: bool = False) -> Tensor:
        """Return which decisions (n,) are right; where there are no labels, as the float network's."""
        decisions, labels = self.decisions(made, own)
        return decisions == (self.decisions(None, own)[0] if labels is None else labels)

    def loss(self, made: Made, *, own: bool = False) -> Difference:
        """Return by how much the float network is oftener right."""
        return difference(self.right(None, own=own), self.right(made, own=own))


def _reached(shop: Workshop, judge: _Judge) -> tuple[Made, int, str]:
    """Return the network that keeps the goal, the largest file that does, and why it is not kept; "" where it is."""
    plan = shop.plan
    if plan.budget is not None:
        size = read_limit(shop.problem, "storage", plan.budget, "budget") / 8
        return shop.within_file(size), math.floor(size), ""
    if plan.accuracy_loss is not None:
        made, reason = _within_loss(shop, judge, plan.accuracy_loss)
        return made, made.size, reason
    room = 0
    if plan.bits is not None:
        room = math.floor(Fraction(plan.bits) * shop.weights)
        allocation = shop.within(room)
        what, least = "bits", f"{min(plan.candidates):g} is the least"
    else:
        allocation = shop.answered(bound=plan.bound, minimize="storage")
        what, least = "bound", "more candidates or conceded samples reach lower ones"
    if allocation is None:
        raise AllocationError("no allocation keeps it", where=what, value=getattr(plan, what), hint=least)
    made = shop.make(allocation)
    left = max(Fraction(0), room - (made.allocation.exact_cost or 0))
    return made, made.size + math.ceil(left / 8), ""


def _within_loss(shop: Workshop, judge: _Judge, allowed: float) -> tuple[Made, str]:
    """Return the cheapest network that surely loses no more accuracy, or the dearest and what is wrong."""
    most, least = max(shop.plan.candidates), min(shop.plan.candidates)
    levels = [most - _STEP * step for step in range(round((most - least) / _STEP) + 1)]

    @cache
    def made(level: int) -> Made:
        allocation = shop.within(math.floor(levels[level] * shop.weights))
        if allocation is None:
            raise AllocationError("no allocation keeps the limits", where="quantize", value=f"{levels[level]:g} bits")
        return shop.make(allocation)

    expected = crossing(len(levels), lambda level: judge.loss(made(level), own=True), allowed)
    best, _ = cheapest(len(levels), expected, lambda level: judge.loss(made(level)), allowed, shop.plan.confidence)
    if best is not None:
        return made(best), ""
    half = 1 - (1 - shop.plan.confidence) / 2
    seen = judge.loss(made(0))
    needed = seen.samples_for(allowed, half)
    told = f"at {most:g} bits a loss of {100 * seen.value:.2f} points was seen on {seen.samples:,} samples"
    if needed is None:
        return made(0), f"{told}, which is above {100 * allowed:.2f}"
    return made(0), f"{told}, too few to tell that it is not above {100 * allowed:.2f}: {needed:,} would do"


def _uniform_name(made: Made) -> str:
    return f"uniform {made.weight_bits:g}"


# -- what came of it -------------------------------------------------------------------------------------------------


def _outcome(
    shop: Workshop, judge: _Judge, made: Made, uniform: Made | None, chosen: Made, name: str, reason: str, where: Path
) -> Outcome:
    float_size = sum(tensor.nbytes for tensor in shop.network.state_dict().values())
    ahead = None
    if judge.language:
        rows = _language_rows(shop, judge, [made] if uniform is None else [made, uniform], float_size)
    else:
        rows = [_judged("float", None, judge, float_size), _judged("allocated", made, judge, made.size)]
        if uniform is not None:
            rows.append(_judged(_uniform_name(uniform), uniform, judge, uniform.size))
            ahead = difference(judge.right(made), judge.right(uniform))
    notes = [*dict.fromkeys([*shop.data.notes, *judge.data.notes, *shop.problem.notes()])]
    return Outcome(
        folder=where, chosen=name, met=not reason, reason=reason, rows=rows, ahead=ahead, samples=len(judge.data),
        origin=judge.data.name, calibration=[step.to_dict() for step in chosen.calibrated.steps], notes=notes,
        seconds=dict(shop.seconds), allocation=chosen.allocation,
    )  # fmt: skip


def _language_rows(shop: Workshop, judge: _Judge, networks: list[Made], float_size: int) -> list[Judged]:
    """Return the float network and others, the allocated one first, as judged window by window."""
    before, found = judge.windows(networks)
    rows = [Judged("float", float_size, float(shop.problem.stored), agreement=1.0)]
    for made, own in zip(networks, found, strict=True):
        name = _uniform_name(made) if len(rows) > 1 else "allocated"
        told = language_of(before, own, found[0], shop.plan.confidence)
        rows.append(Judged(name, made.size, made.weight_bits, agreement=1 - float(own.wrong.mean()), language=told))
    return rows


def _judged(name: str, made: Made | None, judge: _Judge, size: int) -> Judged:
    decisions, labels = judge.decisions(made, False)
    bits = float(judge.shop.problem.stored) if made is None else made.weight_bits
    return Judged(
        name, size, bits,
        agreement=float((decisions == judge.decisions(None, False)[0]).double().mean()),
        accuracy=None if labels is None else float((decisions == labels).double().mean()),
        loss=None if made is None or labels is None else judge.loss(made),
    )  # fmt: skip


def _write(where: Path, shop: Workshop, chosen: Made, outcome: Outcome) -> None:
    """Write what was made; the record comes last, so that where it is all is there."""
    save_allocation(chosen.allocation, where / ALLOCATION, base=shop.base, revision=shop.revision or None)
    atomic_write(where / PACKED, chosen.data)
    notes: list[str] = []
    if shop.plan.target:
        writer = writer_of(shop.plan.target)
        atomic_write(where / f"{writer.name}{writer.ending}", writer.dump(chosen.allocation))
        notes.append(save_checkpoint(where / CHECKPOINT, shop.network, chosen.network, writer, chosen.allocation))
    elif is_huggingface(shop.network):
        save_rounded(where / CHECKPOINT, shop.network, chosen.network)
    program: bytes | None = None
    why = ""
    if not is_huggingface(shop.network):  # which has a folder of its own kind
        program, why = program_bytes(shop.network, where / PACKED, shop.example)
    if program is not None:
        atomic_write(where / PROGRAM, program)
    outcome = dataclasses.replace(outcome, notes=[*outcome.notes, *filter(None, [*notes, why])])
    name = str(shop.problem.provenance.get("network") or type(shop.network).__name__)
    page = render_page(Report(name, chosen.allocation, packed_bytes=chosen.size))
    atomic_write(where / REPORT, page.encode())
    told = json.dumps(outcome.to_dict(shop.plan.confidence), indent=1)
    atomic_write(where / RESULT, told.encode())
