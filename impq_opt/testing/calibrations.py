"""What every part of calibration must keep. Needs torch."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from impq_opt.calibrate import Calibration, Reference, Work, calibration_names, load_calibration
from impq_opt.data.dataset import Dataset
from impq_opt.problem.declaration import Group
from impq_opt.problem.problem import Problem
from impq_opt.quantize import quantize
from impq_opt.testing.rules import rule
from impq_opt.tracing.graph import Network
from impq_opt.tracing.trace import trace

__all__ = ["check_calibration"]

_METHODS = ("symmetric", "twn")


class _Residual(nn.Module):
    """Convolutions with and without a norm, in groups and read twice, and a head; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.body, self.bare = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 1, bias=False)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.body(x) + self.bare(x))
        logits: Tensor = self.out(x.mean((2, 3)))
        return logits


def check_calibration(part: Calibration | str) -> None:
    """Raise ConformanceError, with the rule, unless a part of calibration keeps every rule.

    The rules, for weights on grids of equal steps and for those of a method with other levels, which has no use for
    scales: it has a name, a summary and a source, and its spec names it; the float network, the data and torch's
    generator stay as they are; tensors of the quantized network keep their shapes and types, and stay finite; it says
    what it changed where it changed something, and nothing else; it says why where it changed nothing; the same
    network and samples give the same; labels change nothing.

    Raises
    ------
    ConformanceError
    """
    chosen = load_calibration(part) if isinstance(part, str) else part
    told = bool(chosen.name) and bool(chosen.summary) and bool(chosen.source) and chosen.spec.isprintable()
    rule(told, chosen.spec, "it has a name, a summary and a source")
    named = chosen.name not in calibration_names() or load_calibration(chosen.spec) == chosen
    rule(named, chosen.spec, "its spec names it, options and all")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, inputs = _Residual().eval(), torch.randn(24, 2, 6, 6)
    traced = trace(network, inputs[:2])
    for method in _METHODS:
        who, quantized = f"{chosen.spec}, {method}", _quantized(network, method)
        first, again = (_calibrated(chosen, who, traced, quantized, inputs, labels=labels) for labels in (False, True))
        rule(_same(first, again), who, "the same samples give the same, whatever their labels")
        kept = all((first[n].shape, first[n].dtype) == (t.shape, t.dtype) for n, t in quantized.state_dict().items())
        rule(kept, who, "tensors keep their names, shapes and types")
        rule(all(bool(torch.isfinite(tensor).all()) for tensor in first.values()), who, "tensors stay finite")


def _calibrated(
    part: Calibration, who: str, traced: Network, quantized: nn.Module, inputs: Tensor, *, labels: bool
) -> dict[str, Tensor]:
    """Return the state of a copy that was calibrated; the float network and the data must be what they were."""
    data = Dataset(inputs, torch.arange(len(inputs)) % 3 if labels else None, name="random")
    before, copied = quantized.state_dict(), copy.deepcopy(quantized)
    floats = {name: tensor.clone() for name, tensor in traced.tensors.items()}
    given, drawn = inputs.clone(), torch.get_rng_state()
    with torch.no_grad():
        change = part.apply(Work(copied, Reference(traced, data, torch.arange(16), torch.arange(16, len(inputs)))))
    rule(_same(traced.tensors, floats), who, "the float network stays as it is")
    rule(torch.equal(inputs, given), who, "the data stay as they are")
    rule(torch.equal(torch.get_rng_state(), drawn), who, "torch's generator stays as it is")
    after = copied.state_dict()
    moved = not _same({name: after[name] for name in before}, before)
    rule(moved <= bool(change.changed), who, "it says what it changed")
    rule(bool(change.changed) or bool(change.notes) or bool(change.refused), who, "it says why it changed nothing")
    return after


def _quantized(network: nn.Module, method: str) -> nn.Module:
    weights = [(name, p) for name, p in network.named_parameters() if p.ndim > 1]
    problem = Problem.declare([Group(name, p.numel(), sensitivity=1.0, bits=(2,)) for name, p in weights])
    return quantize(network, problem, np.full(len(problem), 2), scheme=method).eval()


def _same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
