"""What a network's own decisions and batch-norms say of data: whether it was trained on such, given in this way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from impq_opt.data.batch import parts_of, prepare
from impq_opt.data.calling import call, logits_of
from impq_opt.data.dataset import Dataset

__all__ = ["notes_on"]

_SAMPLES, _BATCH = 128, 32
_LEAST = 20  # samples below which nothing is said of decisions
_DOUBT = 0.01  # chance that a network which decides at random does as well as this one
_FAR = 0.2  # share of labels by which others are right far more often
# A batch-norm that was trained on such data sees variances within this factor of its own, at its median channel, and
# means within so many of its standard deviations. Other photographs are within 2 and 1.
_VARIANCE, _SHIFT = 6.0, 3.0


def notes_on(network: nn.Module, data: Dataset, rows: Tensor) -> tuple[int | None, list[str]]:
    """Return the network's number of classes, where its logits can be found, and a sentence on each thing amiss.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    data : Dataset
    rows : Tensor (m,) int64
        Samples to look at; the first 128 are.
    """
    look = _Look(network, data, rows[:_SAMPLES])
    if look.classes is None:
        return None, []
    notes = [*_classes(data, look), *_norm(look)]
    decided = _decisions(look)
    notes += decided
    trusted = look.right_by_more_than_chance or (look.norm is not None and not _norm(look))
    if not trusted:
        notes += _scale(look)
    return look.classes, notes


@dataclass
class _Moments:
    """Mean and variance of what a batch-norm reads, per channel, beside those it was trained on."""

    name: str
    module: nn.modules.batchnorm._BatchNorm
    sums: list[Tensor] = field(default_factory=list)

    def see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].detach().double().movedim(1, 0).flatten(1)
        self.sums.append(torch.stack([torch.full((len(x),), float(x.shape[1])).to(x), x.sum(1), x.square().sum(1)]))

    def off(self) -> tuple[float, float]:
        """Return the median ratio of variances, and the median shift of means in trained standard deviations."""
        if not self.sums:
            return 1.0, 0.0
        count, first, second = torch.stack(self.sums).sum(0).cpu()
        assert self.module.running_mean is not None
        assert self.module.running_var is not None
        mean, trained = first / count, self.module.running_var.double().cpu()
        alive = trained >= 1e-6 * trained.max()
        spread = (trained + self.module.eps).sqrt()
        ratio = ((second / count - mean.square()) / spread.square())[alive].median()
        shift = ((mean - self.module.running_mean.double().cpu()).abs() / spread)[alive].median()
        return float(ratio), float(shift)


class _Look:
    """Decisions, labels, the range of the inputs, and what the first batch-norm read."""

    def __init__(self, network: nn.Module, data: Dataset, rows: Tensor) -> None:
        home = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.norm: _Moments | None = None
        self.classes: int | None = None
        few = rows[:2]
        tried = _logits(network, prepare(data.rows(few)[0], home))
        if tried is None or len(tried) != len(few):  # samples of several decisions, of which nothing is said
            return
        hooks = [
            module.register_forward_pre_hook(self._first_norm(name, module))
            for name, module in network.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and _was_trained(module)
        ]
        decisions, labels = [], []
        self.low, self.high, self.whole = math.inf, -math.inf, True
        try:
            for part in rows.split(_BATCH):
                inputs, given = data.rows(part)
                self._range(inputs)
                logits = _logits(network, prepare(inputs, home))
                if logits is None or len(logits) != len(part):
                    return
                classes = logits.shape[1]
                decisions.append(logits.argmax(1).cpu())
                labels.append(given)
        finally:
            for hook in hooks:
                hook.remove()
        self.classes = classes
        self.decisions = torch.cat(decisions)
        self.labels = None if any(part is None for part in labels) else torch.cat(labels)  # type: ignore[arg-type]

    @property
    def right_by_more_than_chance(self) -> bool:
        return self.labels is not None and self.chance_of(self.labels) <= _DOUBT

    def chance_of(self, labels: Tensor) -> float:
        """Return how often random decisions get as many of ``labels`` right."""
        from scipy.stats import binom

        right = int((self.decisions == labels).sum())
        return float(binom.sf(right - 1, len(labels), 1 / self.classes))  # type: ignore[operator]

    def _first_norm(self, name: str, module: nn.modules.batchnorm._BatchNorm) -> Any:
        def see(called: nn.Module, args: tuple[Any, ...]) -> None:
            if self.norm is None:
                self.norm = _Moments(name, module)
            if self.norm.module is called and args:
                self.norm.see(called, args)

        return see

    def _range(self, inputs: Any) -> None:
        part = next(iter(parts_of(inputs).values()))
        self.picture = part.ndim == 4 and part.is_floating_point()
        if self.picture:
            self.low, self.high = min(self.low, float(part.min())), max(self.high, float(part.max()))
            self.whole = self.whole and bool((part == part.round()).all())


def _logits(network: nn.Module, inputs: Any) -> Tensor | None:
    """Return logits (n, classes), or None where there are none: tracing the network says why."""
    try:
        logits = logits_of(call(network, inputs))
    except Exception:  # the caller's own code may raise anything
        return None
    return logits if logits.ndim == 2 else None


def _was_trained(module: nn.modules.batchnorm._BatchNorm) -> bool:
    """Return whether a batch-norm has other statistics than those it starts with."""
    mean, variance = module.running_mean, module.running_var
    return mean is not None and variance is not None and bool(mean.any() or (variance != 1).any())


def _classes(data: Dataset, look: _Look) -> list[str]:
    """Tell of labels and folders that are not the network's classes."""
    assert look.classes is not None
    labels = look.labels if data.labels is None else data.labels
    notes = []
    if data.classes is not None and data.classes != look.classes:
        differ = f"the data have {data.classes} classes and the network {look.classes}"
        notes.append(f"{differ}: labels may not be the numbers of its classes")
    if labels is not None:
        low, high = int(labels.min()), int(labels.max())
        if low == 1 and high == look.classes:
            notes.append(f"labels go from 1 to {high} and the network's classes from 0 to {high - 1}: subtract 1")
        elif low < 0 or high >= look.classes:
            notes.append(f"labels go from {low} to {high} and the network's classes from 0 to {look.classes - 1}")
    return notes


def _norm(look: _Look) -> list[str]:
    """Tell of a first batch-norm that sees other values than it was trained on."""
    if look.norm is None:
        return []
    ratio, shift = look.norm.off()
    said = []
    if not 1 / _VARIANCE <= ratio <= _VARIANCE:
        factor = math.sqrt(ratio) if ratio > 1 else 1 / math.sqrt(max(ratio, 1e-12))
        said.append(f"spread {factor:.3g} times as {'wide' if ratio > 1 else 'narrow'} as those it was trained on")
    if shift > _SHIFT:
        said.append(f"{shift:.3g} standard deviations away from those it was trained on")
    if not said:
        return []
    asked = f": are the inputs, from {look.low:.3g} to {look.high:.3g}, scaled as in training?" if look.picture else ""
    return [f"the first batch-norm, {look.norm.name!r}, reads values {' and '.join(said)}{asked}"]


def _decisions(look: _Look) -> list[str]:
    """Tell of a network that decides like chance, or always alike."""
    notes = []
    count, classes = len(look.decisions), look.classes or 1
    if count < _LEAST or classes < 2:
        return []
    kinds = 0 if look.labels is None else len(look.labels.unique())
    if look.labels is not None:
        right = float((look.decisions == look.labels).double().mean())
        other = _other_labels(look, right)
        if other or not look.right_by_more_than_chance:
            notes.append(
                f"the float network gets {right:.1%} of {count} labels right, chance is {1 / classes:.1%}: is this its "
                f"data, its normalisation, its label order?{other}"
            )
    if kinds != 1 and len(look.decisions.unique()) == 1:
        notes.append(
            f"the network decides for class {int(look.decisions[0])} in all of {count} samples: is this its data, its "
            "normalisation?"
        )
    return notes


def _other_labels(look: _Look, right: float) -> str:
    """Tell of labels that would be right far more often: counted from another number, or in another order."""
    assert look.labels is not None
    assert look.classes is not None
    for shift, said in ((-1, "counted from 0, not 1"), (1, "counted from 1, not 0")):
        shifted = float((look.decisions == look.labels + shift).double().mean())
        if shifted > max(0.5, right + _FAR):
            return f" Were the labels {said}, {shifted:.1%} would be right."
    kinds = look.labels.unique()
    if int(kinds.min()) < 0 or int(kinds.max()) >= look.classes or len(look.labels) < 5 * len(kinds):
        return ""
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(look.classes, look.classes, dtype=torch.int64)
    table.index_put_((look.labels, look.decisions), torch.ones(()).long(), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    best = float(table[rows, columns].sum()) / len(look.labels)
    return f" With the classes in another order {best:.1%} would be right." if best > max(0.5, right + _FAR) else ""


def _scale(look: _Look) -> list[str]:
    """Tell of pictures as they are stored, where nothing says that the network takes them so."""
    if not (look.picture and look.whole and look.low >= 0 and 2 < look.high <= 255):
        return []
    return [
        f"inputs are whole numbers from {look.low:g} to {look.high:g}, as pictures are stored: does the network take "
        "them so, not from 0 to 1, or normalised?"
    ]
