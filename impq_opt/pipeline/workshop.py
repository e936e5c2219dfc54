"""Where allocations become calibrated networks and files of a known size."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import nn

from impq_opt.calibrate import Calibrated, Reference, calibrate, refer
from impq_opt.data.batch import Structure
from impq_opt.data.dataset import Dataset
from impq_opt.errors import AllocationError
from impq_opt.files.revision import Revision
from impq_opt.insight.cost_at import cost_at
from impq_opt.pipeline.plan import Plan
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.quantize import code_bits, packed, quantize
from impq_opt.solve import solve
from impq_opt.types import Real
from impq_opt.validate.sweep import Progress

__all__ = ["Made", "Workshop"]


@dataclass(frozen=True, eq=False)
class Made:
    """A quantized network.

    Parameters
    ----------
    allocation : Allocation
    calibrated : Calibrated
        The network, in eval mode, and what calibration did to it.
    data : bytes
        Its packed file.
    """

    allocation: Allocation
    calibrated: Calibrated
    data: bytes

    @property
    def network(self) -> nn.Module:
        """The quantized network."""
        return self.calibrated.network

    @property
    def size(self) -> int:
        """Bytes of its packed file."""
        return len(self.data)

    @property
    def weight_bits(self) -> float:
        """Mean precision of the quantized weights."""
        return float(self.allocation.effective_bits[0] or 0.0)


class Workshop:
    """A network, its problem, and data to calibrate on.

    Parameters
    ----------
    network : nn.Module
        In float.
    problem : Problem
    data : Dataset
    plan : Plan
    device : str
    progress : callable, optional
        Told what is going on, how much of it is done, and how much there is.

    Attributes
    ----------
    base : Problem
        The problem as it was measured.
    revision : Revision
        What the plan limits besides.
    problem : Problem
        So revised.
    seconds : mapping of str to float
        Processor time of solving and of calibrating.
    """

    def __init__(
        self,
        network: nn.Module,
        problem: Problem,
        data: Dataset,
        plan: Plan,
        *,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self.network, self.base, self.data, self.plan = network, problem, data, plan
        self.revision = Revision(budgets=dict(plan.limits))
        self.problem = self.revision.apply(problem) if self.revision else problem
        self.device, self._progress = device, progress
        self.example: Structure = data.rows(torch.arange(min(2, len(data))))[0]
        self.seconds: dict[str, float] = defaultdict(float)

    @cached_property
    def reference(self) -> Reference:
        """The float network, traced once, and what is known of it on the samples."""
        plan = self.plan
        return refer(self.network, self.data, samples=plan.samples, seed=plan.seed, device=self.device)

    @property
    def weights(self) -> int:
        """How many weights are quantized."""
        return int(self.problem.sizes[self.problem.weights()].sum())

    def within(self, bits: Real, solver: str = "exact") -> Allocation | None:
        """Return the least damage with at most so many bits of codes; None where nothing is that small."""
        return self.answered(budget=bits, minimize="storage", solver=solver)

    def answered(self, **question: object) -> Allocation | None:
        """Return the answer to a question of the problem; None where there is none."""
        began = time.process_time()
        answer = solve(self.problem, time_limit=60.0, seed=self.plan.seed, **question)  # type: ignore[arg-type]
        self.seconds["solving"] += time.process_time() - began
        return None if answer.choice is None else answer

    def make(self, allocation: Allocation) -> Made:
        """Quantize as allocated, and calibrate."""
        began = time.process_time()
        quantized = quantize(self.network, self.problem, allocation, example=self.example).eval()
        calibrated = calibrate(
            quantized, self.network, self.data, self.plan.calibration,
            samples=self.plan.samples, seed=self.plan.seed, device=self.device, progress=self._progress,
            reference=self.reference,
        )  # fmt: skip
        self.seconds["calibrating"] += time.process_time() - began
        return Made(allocation, calibrated, packed(calibrated.network)[0])

    def within_file(self, size: Fraction) -> Made:
        """Return the allocation of least damage whose packed file has at most ``size`` bytes.

        Scales, what stays in float and the header do not depend on precisions, or by a few bytes: they are taken from
        the file of the answer before, and the answer is repeated where its own file came out too large.

        Raises
        ------
        AllocationError
            The smallest file is larger.
        """
        problem = self.problem
        least = np.array([np.argmin(problem.candidates.of(g)) for g in range(len(problem))])
        for group, column in problem.kept.items():
            least[group] = column
        file, _ = packed(quantize(self.network, problem, code_bits(problem, least), example=self.example))
        besides = len(file) - cost_at(problem, problem.candidates.bits(least), "storage") / 8
        while True:
            allocation = self.within(8 * (size - besides)) if size >= besides else None
            if allocation is None:
                raise AllocationError(
                    f"the smallest file of this network has {len(file):,} bytes, {math.ceil(besides):,} of them "
                    "scales, what stays in float and header",
                    where="budget",
                    value=f"{math.floor(size):,} bytes",
                )
            made = self.make(allocation)
            if made.size <= size:
                return made
            besides += made.size - size

    def uniform(self, most: int) -> Made | None:
        """Return the network of one precision for all weights whose file has at most ``most`` bytes; None without."""
        widths = sorted({float(b) for g in range(len(self.problem)) for b in self.problem.candidates.of(g)})
        for width in reversed(widths):
            if width >= self.problem.stored:  # nothing is quantized
                continue
            if not self.problem.candidates.formats and width * self.weights > 8 * most:  # codes alone are larger
                continue
            allocation = self.within(math.floor(width * self.weights), solver="uniform")
            if allocation is None or allocation.effective_bits[0] != width:
                continue
            if len(packed(quantize(self.network, self.problem, allocation, example=self.example))[0]) <= most:
                return self.make(allocation)
        return None
