"""Rounding up or down, learned for the layers of a block together by what the block gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from impq_opt.calibrate.blocks import Block, blocks_of
from impq_opt.calibrate.layers import Layer, Reasons, Walk, layers_of
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.rounding import Cells, cells_of
from impq_opt.calibrate.soft import RATE, Soft, exponent
from impq_opt.calibrate.work import Work
from impq_opt.data.batch import Several
from impq_opt.errors import OptionError
from impq_opt.quantize.methods.base import exact
from impq_opt.quantize.methods.uniform import WeightQuantizer
from impq_opt.tracing.module import TracedModule

__all__ = ["BRECQ"]

_SAMPLES = 32  # of a step
_HELD = 4  # one batch of so many is held back, to say whether a block came closer
_WEIGHT = 2.0  # of the regularizer, of errors in units of what they are before


@dataclass(frozen=True)
class BRECQ(Calibration):
    """Learn for every weight whether it is rounded up or down, block after block, all layers of a block together.

    A block is what lies between two calls that all behind them depends on alone: a residual block, or a layer with its
    norm and rectifier. Made small is the mean squared difference between what the block gives, of what the quantized
    network gives it, and what it gives in the float network. What was learned is kept where that difference falls on
    samples that are held back, a quarter of all; elsewhere the codes stay what they are. Scales are held, as by
    ``gptq``. The paper weighs the difference by squared gradients of the loss, which is left out here.

    Parameters
    ----------
    steps : int
        Of Adam, for each block.
    """

    name = "brecq"
    summary = "rounding up or down learned by what residual blocks give"
    source = "Li et al., BRECQ: pushing the limit of post-training quantization by block reconstruction (ICLR 2021)"

    steps: int = 300

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError("must be at least 1", where="brecq.steps", value=self.steps)

    def apply(self, work: Work) -> Change:
        layers, left = layers_of(work.quantized, work.float)
        blocks, behind = blocks_of(work.quantized, work.float, layers)
        for layer in behind:
            left.add("behind the last call that all depends on", layer.name)
        rows, changed = work.fitting(networks=2), []
        rounded, floats = (
            Walk(graph, _split(work.batches(self.name, samples=rows, passes=2, done=done)))
            for done, graph in enumerate((work.quantized, work.float.copy().eval()))
        )
        for block in blocks:
            given = rounded.before(block.start)
            task = _Task(work.quantized, block, given, floats.through(block.end))
            changed += self._learned(task, left)
            rounded.through(block.end)
        none = () if changed or not layers else ("no block comes closer on samples that are held back",)
        return Change(tuple(changed), (*left.notes(), *none, *work.told(rows)))

    def _learned(self, task: _Task, left: Reasons) -> list[str]:
        """Learn the rounding of a block's layers; return their names where it came closer."""
        places = []
        for layer in task.block.layers:
            if isinstance(layer.weight.quantizer, WeightQuantizer):
                places.append(_place(layer, task.block))
            else:
                left.add(f"rounded by {layer.weight.quantizer.method.name}, whose levels cannot be held", layer.name)
        count = len(task.given)
        held = range(0, count, _HELD) if count > 1 else range(count)
        seen = [batch for batch in range(count) if batch not in held] or list(held)
        before = task.error({}, held)
        if not places or not before > 0:
            return []
        with torch.enable_grad():
            self._descend(task, places, seen, before)
        decided = [place.soft.decided() for place in places]
        values = {p.node: p.shaped(p.cells.rounded(weight)) for p, weight in zip(places, decided, strict=True)}
        if not task.error(values, held) < before:
            return []
        for place, weight in zip(places, decided, strict=True):
            latent = place.layer.weight.latent
            place.quantizer.hold(place.quantizer.side(latent))
            latent.copy_(weight.reshape(latent.shape))
        return [place.layer.name for place in places]

    def _descend(self, task: _Task, places: Sequence[_Place], seen: Sequence[int], unit: float) -> None:
        """Move the numbers between up and down of all layers of a block; errors are in units of the error before."""
        optimizer = torch.optim.Adam([place.soft.raised for place in places], RATE)
        order = _shuffled(seen)
        for step in range(self.steps):
            values = {place.node: place.shaped(place.soft.values()) for place in places}
            loss = task.difference(values, next(order)) / unit
            if sharp := exponent(step, self.steps):
                loss = loss + _WEIGHT * sum(place.soft.undecided(sharp).mean() for place in places)
            optimizer.zero_grad()
            loss.backward(inputs=[place.soft.raised for place in places])
            optimizer.step()


class _Place(NamedTuple):
    """A layer of a block whose rounding is learned: the parameter's node, its grid and its numbers."""

    layer: Layer
    node: str
    quantizer: WeightQuantizer
    cells: Cells
    soft: Soft

    def shaped(self, values: Tensor) -> Tensor:
        """Return weights (groups, outputs, length) as the layer reads them."""
        latent = self.layer.weight.latent
        return values.reshape(latent.shape).to(latent.dtype)


def _place(layer: Layer, block: Block) -> _Place:
    quantizer, latent = layer.weight.quantizer, layer.weight.latent
    assert isinstance(quantizer, WeightQuantizer)
    cells = cells_of(quantizer, latent, layer.use.groups)
    soft = Soft(exact(latent.detach()).reshape(cells.step.shape), cells)
    parameter = next(node for node in block.nodes if node.name == layer.use.node).args[1]
    assert isinstance(parameter, fx.Node)
    return _Place(layer, parameter.name, quantizer, cells, soft)


class _Task:
    """A block of a quantized network, what it reads of each batch, and what it gives in the float network."""

    def __init__(
        self, module: TracedModule, block: Block, given: Sequence[Mapping[fx.Node, Any]], wanted: Sequence[Tensor]
    ) -> None:
        self.module, self.block, self.given, self.wanted = module, block, given, wanted

    def difference(self, weights: Mapping[str, Tensor], batch: int) -> Tensor:
        """Return the mean squared difference on a batch, with weights in place of those of nodes."""
        run = fx.Interpreter(self.module, graph=self.module.traced_graph, garbage_collect_values=False)
        run.env = dict(self.given[batch])
        for node in self.block.nodes:
            for source in node.all_input_nodes:
                if source.op == "get_attr" and source not in run.env:
                    own = weights.get(source.name)
                    run.env[source] = run.fetch_attr(str(source.target)) if own is None else own
            run.env[node] = run.run_node(node)
        wanted = self.wanted[batch]
        return (run.env[self.block.nodes[-1]] - wanted).to(exact(wanted).dtype).square().mean()

    def error(self, weights: Mapping[str, Tensor], batches: Iterable[int]) -> float:
        """Return the mean squared difference over batches."""
        rows = [(float(self.difference(weights, batch)), len(self.wanted[batch])) for batch in batches]
        return sum(error * count for error, count in rows) / sum(count for _, count in rows)


def _split(batches: Iterable[Tensor | Several]) -> Iterator[Tensor | Several]:
    """Yield batches in parts of nearly equal size."""
    for batch in batches:
        yield from batch.split(math.ceil(len(batch) / math.ceil(len(batch) / _SAMPLES)))


def _shuffled(batches: Sequence[int]) -> Iterator[int]:
    """Yield batches in an order that changes with every pass."""
    drawing = torch.Generator().manual_seed(0)
    while True:
        yield from (batches[place] for place in torch.randperm(len(batches), generator=drawing).tolist())
