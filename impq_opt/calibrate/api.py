"""Calibration of a quantized network, step by step: each is kept or undone by what it measures."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from impq_opt.calibrate.part import Calibration
from impq_opt.calibrate.parts import load_calibration
from impq_opt.calibrate.work import Closeness, Progress, Reference, Work
from impq_opt.data.batch import prepare
from impq_opt.data.dataset import Dataset
from impq_opt.errors import DataError, OptionError
from impq_opt.memory import kept_memory
from impq_opt.networks.fitting import fitted
from impq_opt.quantize import activation_quantizers, quantized_weights
from impq_opt.tracing.trace import trace

__all__ = ["STEPS", "Calibrated", "Drawn", "Step", "calibrate", "drawn", "refer"]

STEPS = ("gptq", "statistics", "bias")
_HELD = 256  # samples that judge, at most a third of all
_LEAST = 6  # samples: two at least to judge and to normalize by


@dataclass(frozen=True)
class Step:
    """What one step did.

    Parameters
    ----------
    name : str
        Of the part, with its options.
    changed : tuple of str
        The layers and norms that it changed.
    notes : tuple of str
        What it left alone and why, a sentence each.
    before, after : Closeness
        To the float network, on held-out samples; of a step that was undone ``after`` is what it had come to.
    outcome : {"kept", "undone", "refused", "nothing"}
        Undone where it made the divergence larger, beyond the noise; refused by itself; or it had nothing to change.
    reason : str
        Why it is not kept; "" where it is.
    seconds : float
        Processor time.
    """

    name: str
    changed: tuple[str, ...]
    notes: tuple[str, ...]
    before: Closeness
    after: Closeness
    outcome: str
    reason: str
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether the network has what the step did."""
        return self.outcome == "kept"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "kept": self.kept,
            "reason": self.reason,
            "changed": list(self.changed),
            "notes": list(self.notes),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A calibrated network and how it came about.

    Parameters
    ----------
    network : nn.Module
        A copy of the quantized network, of the same kind, to be packed, validated or trained like it.
    steps : tuple of Step
    before, after : Closeness
        Of the quantized network and of the calibrated one to the float network, on held-out samples.
    samples, held : int
        How many samples it was calibrated on and judged by.
    notes : tuple of str
        What seems wrong with the data, a sentence each.
    """

    network: nn.Module
    steps: tuple[Step, ...]
    before: Closeness
    after: Closeness
    samples: int
    held: int
    notes: tuple[str, ...] = ()


@kept_memory()
def calibrate(
    quantized: nn.Module,
    float_network: nn.Module,
    data: Dataset,
    steps: Sequence[str | Calibration] = STEPS,
    *,
    samples: int = 512,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    reference: Reference | None = None,
) -> Calibrated:
    """Bring a quantized network closer to the float network without training and without labels.

    After each step the decisions of both networks are compared on samples that it has not seen. A step that makes the
    mean Kullback-Leibler divergence larger, by more than two standard errors of the paired difference, is undone.

    Parameters
    ----------
    quantized : nn.Module
        As :func:`impq_opt.quantize.quantize` returns it; left as it is.
    float_network : nn.Module
        The network that it was made from; left as it is.
    data : Dataset
        Of the kind that the network was trained on; labels are not looked at.
    steps : sequence of str or Calibration
        Names of parts, with options as in ``"gptq:damping=0.1"``, in the order in which they are done; compensated
        rounding, batch-norm statistics and bias correction unless given.
    samples : int
        How many are calibrated on; up to 256 more, a third of all at most, are held out.
    seed : int
        Of the draw of samples.
    device : str or torch.device, optional
        Where to compute; where the quantized network is unless given. The calibrated one is there too.
    progress : callable, optional
        Told what is going on, how much of it is done, and how much there is.
    reference : Reference, optional
        As :func:`refer` makes it of the same network, data, ``samples``, ``seed`` and ``device``: what it knows of
        the float network is not computed again, where several copies are calibrated.

    Raises
    ------
    DataError
        The quantized network is no copy of the float one, or does not run on the data; or there are too few of them.
    OptionError
        An unknown part or option.
    """
    parts = [load_calibration(step) for step in steps]
    if not quantized_weights(quantized):
        raise OptionError("has no quantized weight", where="calibrate", hint="quantize it with an allocation first")
    home = next(quantized.parameters()).device if device is None else torch.device(device)
    beside = reference or refer(float_network, data, samples=samples, seed=seed, device=home)
    network = copy.deepcopy(quantized).to(home)
    modes = {module: module.training for module in network.modules()}
    with torch.no_grad():
        work = Work(network.eval(), beside, progress)
        first = work.now
        done = tuple(_step(part, work) for part in parts)
    for module, mode in modes.items():
        module.training = mode
    return Calibrated(network, done, first, work.now, len(work.rows), len(work.held), work.data.notes)


def refer(
    network: nn.Module, data: Dataset, *, samples: int = 512, seed: int = 0, device: str | torch.device = "cpu"
) -> Reference:
    """Return a float network as copies are held against it; see :func:`calibrate`.

    Raises
    ------
    DataError
        It does not run on the data, or there are too few of them.
    OptionError
        No samples.
    """
    if samples < 1:
        raise OptionError("must be at least 1", where="samples", value=samples)
    data = fitted(network, data)
    rows, held, _ = drawn(data, samples, seed)
    traced = trace(network, prepare(data.rows(rows[:2])[0], next(network.parameters()).device))
    traced.to(torch.device(device))
    return Reference(traced, data, rows, held)


class Drawn(NamedTuple):
    """Rows (n,) to calibrate on, those to be judged by, a third of all at most, and those that are not looked at."""

    rows: Tensor
    held: Tensor
    rest: Tensor


def drawn(data: Dataset, samples: int, seed: int) -> Drawn:
    """Return which rows :func:`calibrate` takes of ``data``.

    Raises
    ------
    DataError
        There are too few.
    """
    if len(data) < _LEAST:
        raise DataError("has too few samples to calibrate on", where=f"data {data.name}", value=len(data))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held = min(_HELD, len(data) // 3)
    return Drawn(order[held : held + samples], order[:held], order[held + samples :])


def _step(part: Calibration, work: Work) -> Step:
    """Do one step, and undo it where it did harm."""
    before = work.now
    kept = {name: tensor.clone() for name, tensor in work.network.state_dict().items()}
    spans = {label: quantizer.span for label, quantizer in activation_quantizers(work.network).items()}
    began = time.process_time()
    change = part.apply(work)
    seconds = time.process_time() - began
    if not change.changed:
        reason = change.refused or "; ".join(change.notes)
        outcome = "refused" if change.refused else "nothing"
        return Step(part.spec, (), change.notes, before, before, outcome, reason, seconds)
    after = work.closeness(work.network)
    if not after.worse_than(before):
        work.now = after
        return Step(part.spec, change.changed, change.notes, before, after, "kept", "", seconds)
    _restore(work.network, kept, spans)
    reason = (
        f"it took the network away from the float one: from KL {before.kl:.3g} to {after.kl:.3g} nat, from "
        f"{before.agreement:.1%} to {after.agreement:.1%} of held-out samples decided alike"
    )
    return Step(part.spec, change.changed, change.notes, before, after, "undone", reason, seconds)


def _restore(network: nn.Module, kept: Mapping[str, Tensor], spans: Mapping[str, float]) -> None:
    """Give a network its former state and ranges of activations, without what quantizers have kept since."""
    for label, quantizer in activation_quantizers(network).items():
        quantizer.stretch(spans[label])
    for name, tensor in network.state_dict().items():
        if name in kept:
            tensor.copy_(kept[name])
        else:
            path, _, own = name.rpartition(".")
            del network.get_submodule(path)._buffers[own]
