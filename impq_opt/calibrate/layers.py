"""Quantized layers one after the other: what each reads and gives, with all before it changed already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from impq_opt.calibrate.graphs import Norm, held, inputs_of, norms_of
from impq_opt.data.batch import Several
from impq_opt.quantize.methods.base import QuantizedWeight
from impq_opt.quantize.network import quantized_weights
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import batch_shape, op_of
from impq_opt.tracing.sites import Use, WeightSite

__all__ = ["Layer", "Reasons", "Walk", "layers_of", "quantized_sites"]

_SHOWN = 3  # names in a sentence


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer with a quantized weight, in the graph of a quantized network.

    Parameters
    ----------
    name : str
        Of its module.
    weight : QuantizedWeight
    use : Use
        Its call.
    bias : Tensor (out,), optional
        Where no other layer has it too.
    norms : dict of str to Norm
        The batch-norms that read its output, by node. Where one has other channels than the layer has outputs, a mean
        of an output has no place: there is neither bias nor norm then.
    alone : bool
        Nothing but those reads its output.
    """

    name: str
    weight: QuantizedWeight
    use: Use
    bias: Tensor | None
    norms: dict[str, Norm]
    alone: bool

    def channels(self, output: Tensor) -> Tensor:
        """Return an output as (out, ...)."""
        return output.movedim(1 if self.use.dimensions else -1, 0).flatten(1)


class Reasons:
    """Names by the reason why something is left alone."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Add a name."""
        self._names.setdefault(reason, []).append(name)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason, with the first names."""
        return tuple(
            f"{reason}: {', '.join(names[:_SHOWN])}" + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
            for reason, names in self._names.items()
        )


def layers_of(quantized: TracedModule, traced: Network) -> tuple[list[Layer], Reasons]:
    """Return the layers in the order of their calls, and which quantized weights are none, by the reason."""
    nodes = {node.name: node for node in quantized.traced_graph.nodes}
    norms = norms_of(quantized)
    biases = [id(bias) for bias in (_bias(quantized, node) for node in nodes.values()) if bias is not None]
    layers: list[Layer] = []
    left = Reasons()
    for site, weight in quantized_sites(quantized, traced):
        if len(site.uses) > 1 or site.uses[0].operand:
            left.add("used by several calls" if len(site.uses) > 1 else "of no convolution or linear layer", site.name)
            continue
        node = nodes[site.uses[0].node]
        bias, behind = _bias(quantized, node), {user.name: norms[user] for user in node.users if user in norms}
        by_others = bool(behind) and not site.uses[0].dimensions and len(batch_shape(traced.nodes[node.name])) > 2
        if by_others:  # a batch-norm over other channels than the layer's outputs
            bias, behind = None, {}
        bias = bias if bias is not None and biases.count(id(bias)) == 1 else None
        layers.append(Layer(site.name, weight, site.uses[0], bias, behind, len(behind) == len(node.users)))
    return layers, left


def quantized_sites(quantized: nn.Module, traced: Network) -> Iterator[tuple[WeightSite, QuantizedWeight]]:
    """Yield the sites of the float network whose weights are quantized, each with its weight."""
    weights = {id(weight.latent): weight for weight in quantized_weights(quantized).values()}
    for site in traced.weights:
        weight = weights.get(id(_latent(quantized, site.parameter)))
        if weight is not None:
            yield site, weight


def _latent(module: nn.Module, parameter: str) -> Tensor | None:
    """Return the latent weight of a quantized parameter."""
    path, _, name = parameter.rpartition(".")
    parent = module.get_submodule(path)
    return parent.parametrizations[name].original if parametrize.is_parametrized(parent, name) else None  # type: ignore[index, union-attr]


def _bias(module: TracedModule, node: fx.Node) -> Tensor | None:
    layer = op_of(node) in ("conv1d", "conv2d", "conv3d", "linear") and len(node.args) > 2
    return held(module, node.args[2]) if layer else None


class Walk:
    """Runs a graph call by call, each on all batches before the next; what a call is given can be changed before it.

    Parameters
    ----------
    module : TracedModule
        In eval mode. Parameters and buffers are taken as they are when a call needs them.
    batches : iterable of Tensor (n, ...) or Several
        Tensors between calls are held for all of them.
    """

    def __init__(self, module: TracedModule, batches: Iterable[Tensor | Several]) -> None:
        self.module = module
        self._runs: list[fx.Interpreter] = []
        for batch in batches:
            run = fx.Interpreter(module, graph=module.traced_graph)
            run.args_iter = iter(inputs_of(module, batch))
            self._runs.append(run)
        self._left: Iterator[fx.Node] = iter(module.traced_graph.nodes)
        self._at: fx.Node | None = None

    def to(self, name: str) -> Iterator[Tensor]:
        """Run all calls before that of a layer; yield what it reads, batch by batch."""
        source = self._come_to(name).all_input_nodes[0]
        yield from (run.env[source] for run in self._runs)

    def before(self, name: str) -> list[dict[fx.Node, Any]]:
        """Run all calls before that of a name; return what is read from there on, batch by batch."""
        self._come_to(name)
        return [dict(run.env) for run in self._runs]

    def through(self, name: str) -> list[Tensor]:
        """Run all calls up to that of a name, and that one; return what it gives, batch by batch."""
        if self._at is None or self._at.name != name:
            self._come_to(name)
        return self.output()

    def output(self) -> list[Tensor]:
        """Run the layer that was come to; return what it gives, batch by batch, the tensors that go on."""
        assert self._at is not None
        node, self._at = self._at, None
        self._do(node)
        return [run.env[node] for run in self._runs]

    def _come_to(self, name: str) -> fx.Node:
        """Run all calls before that of a name, and return its node."""
        if self._at is not None:
            self.output()
        for node in self._left:
            if node.name == name:
                self._at = node
                return node
            self._do(node)
        raise KeyError(name)

    def _do(self, node: fx.Node) -> None:
        if node.op in ("get_attr", "output"):
            return
        taken: dict[fx.Node, Any] = {}
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                taken[source] = self._runs[0].fetch_attr(str(source.target))
        for run in self._runs:
            run.env.update(taken)
            run.env[node] = run.run_node(node)
            for source in taken:
                del run.env[source]
            for done in run.user_to_last_uses.get(node, ()):
                run.env.pop(done, None)
