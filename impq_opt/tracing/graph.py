"""The network as a graph: which tensors a quantizer would see, who reads them, and how to run it with taps.

Any module that ``torch.export`` accepts becomes a graph of ATen calls, so that nothing hangs on class names, and the
same weight used twice is one weight. Weights are those of convolutions, linear layers and whatever else multiplies or
looks up (:mod:`~impq_opt.tracing.weights`). Activations are the tensors that these read, followed back through
operations that only move or pool values; the network's own input is not among them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import networkx as nx
import torch
from torch import Tensor, device, fx, nn
from torch.utils import _pytree as pytree

from impq_opt.data.batch import Several
from impq_opt.data.calling import flat_logits, place_of_logits
from impq_opt.errors import DataError, OptionError, nearest
from impq_opt.tracing.clips import clip_in_front, clip_of, is_rectified
from impq_opt.tracing.export import Exported
from impq_opt.tracing.folding import Fold, find_folds, folded_module
from impq_opt.tracing.module import TracedModule, trainable
from impq_opt.tracing.nodes import (
    Layout,
    attribute_of,
    batch_shape,
    live_nodes,
    module_of,
    op_of,
    sample_shape,
)
from impq_opt.tracing.operations import IDENTITIES, SHAPES, TRANSPARENT
from impq_opt.tracing.plain import plain
from impq_opt.tracing.precision import HALVES, widen_graph, widened
from impq_opt.tracing.running import Runner, Walk
from impq_opt.tracing.sites import ActivationSite, WeightSite
from impq_opt.tracing.stays import find_stays
from impq_opt.tracing.weights import find_weights

__all__ = ["RESIDUAL", "Network"]

RESIDUAL = ("tie", "accumulate")

_ADDS = frozenset(("add", "add_"))


class Network:
    """A traced classifier.

    Attributes
    ----------
    weights : tuple of WeightSite
    activations : tuple of ActivationSite
    ties : tuple of tuple of str
        Names of activation sites that share one quantizer, because a residual addition adds them.
    graph : networkx.DiGraph
        Calls as nodes (attributes ``op``, ``module``, ``shape``), edges from producer to reader.
    stays : tuple of Stay
        Every parameter of the network that is in no weight site.
    skipped : tuple of str
        The names of those that stay and have two dimensions or more, and of those that a weight norm or the like
        computes weights from, which are counted with these.
    classes : int
    decisions : int
        How many each sample holds: 1 of a classifier, one at each token of a language model.
    keywords : tuple of str
        Names of the inputs, where they are given by keyword, in the graph's order.
    logits_at : str
        Where the logits are in what the network returns; "" where they are all of it.
    layouts : dict of str to Layout
        Where the samples are in the output of each watched node.
    stored : dict of str to torch.dtype
        Types of parameters and buffers as the network has them, by node, where it computes in another one here.
    """

    def __init__(
        self,
        network: nn.Module,
        exported: Exported,
        residual: str,
        *,
        keywords: tuple[str, ...] = (),
        merged: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> None:
        if residual not in RESIDUAL:
            raise OptionError(
                "unknown treatment", where="residual", value=residual, hint="known are tie and accumulate"
            )
        graph = exported.graph
        self.module = TracedModule(network, graph, exported.constants)
        self.structure, self._names, self._old_labels = exported.structure, exported.labels, exported.old_labels
        self.nodes = {node.name: node for node in graph.nodes}
        self.layouts: dict[str, Layout] = {}
        self.stored: dict[str, torch.dtype] = {}
        self.keywords = keywords
        self._live = live_nodes(graph)
        self._order = {node: place for place, node in enumerate(self._live)}
        self.place = self._find_logits(next(n for n in graph.nodes if n.op == "output").args[0])
        self._hold()
        self.graph = self._networkx()
        self.ties: tuple[tuple[str, ...], ...] = ()
        named = dict(self.module.named_parameters(remove_duplicate=False))
        left = {_parameter(named, name).data_ptr() for name in without}
        self.weights = tuple(
            site
            for site in find_weights(self._live, self.tensors, named, self._resolve)
            if named[site.parameter].data_ptr() not in left
        )
        if not self.weights:
            raise DataError("has no weight of two or more dimensions to measure", where="network")
        self.activations = self._find_activations(residual)
        parameters = dict(self.module.named_parameters())
        self.stays = find_stays(parameters, map(self.weight_tensor, self.weights), self._live, self.tensors, left)
        self.skipped = (*(stay.name for stay in self.stays if parameters[stay.name].ndim > 1), *merged)

    def _hold(self) -> None:
        """Take hold of the parameters and buffers as they are now, without their gradients."""
        attributes = {
            name: attribute_of(self.module, str(n.target)) for name, n in self.nodes.items() if n.op == "get_attr"
        }
        self.tensors = {name: held.detach() for name, held in attributes.items()}

    def _find_logits(self, outputs: Sequence[Any]) -> int:
        """Return which output the logits are."""
        keys = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(len(outputs)), self.structure))[0]
        shapes = [batch_shape(output) if isinstance(output, fx.Node) else () for output in outputs]
        place = place_of_logits([path for path, _ in keys], shapes)
        self.logits_at = pytree.keystr(keys[place][0])
        self.classes, self.decisions = shapes[place][-1], shapes[place][1] if len(shapes[place]) == 3 else 1
        if self.classes < 2:
            raise DataError("needs at least two classes", where="network", value=self.classes)
        return place

    def run(
        self,
        x: Tensor | Several,
        visit: Callable[[str, Tensor, tuple[Any, ...]], Tensor] | None = None,
        tensors: dict[str, Tensor] | None = None,
        watch: frozenset[str] = frozenset(),
        folds: Mapping[str, Fold] = MappingProxyType({}),
    ) -> Tensor:
        """Return the logits (n, classes) of inputs; of samples with several decisions (n * decisions, classes).

        Parameters
        ----------
        x : Tensor (n, ...) or Several
        visit : callable (node, output, inputs) -> Tensor, optional
            Called after each node named in ``watch``; what it returns goes on in place of the output.
        tensors : dict, optional
            Values in place of parameters, by node.
        folds : mapping, optional
            Layers that take in the batch-norm behind them; of :attr:`folds`. Their outputs are the batch-norm's.
        """
        held = {**self.tensors, **(tensors or {})}
        return flat_logits(Runner(self.module, visit, held, watch, folds).run(*self._given(x))[self.place])

    def logits(self, x: Tensor | Several) -> Tensor:
        """Return what :meth:`run` does, quicker: with all folds, and no node to be shown."""
        with torch.no_grad():
            return flat_logits(self._folded(*self._given(x))[self.place])

    def walk(self, x: Tensor | Several) -> Walk:
        """Return a pass over inputs that stops where it is told and can be finished from there many times."""
        return Walk(self.module, self.tensors, self.folds, self._given(x))

    def _given(self, x: Tensor | Several) -> tuple[Tensor, ...]:
        """Return the inputs in the order of the graph's, in float32 where they are in half precision and it is not."""
        given = (x,) if isinstance(x, Tensor) else x.args or tuple(x.kwargs[name] for name in self.keywords)
        return tuple(map(widened, given)) if self.stored else given

    @cached_property
    def _folded(self) -> fx.GraphModule:
        return folded_module(self.module, self.folds)

    @cached_property
    def folds(self) -> dict[str, Fold]:
        """The layers that can take in the batch-norm behind them, by node."""
        return find_folds(self._live, self.tensors)

    def to(self, place: device) -> None:
        """Move all parameters."""
        self._renew(lambda tensor: tensor.to(place))

    @property
    def is_half(self) -> bool:
        """Whether something is computed in half precision."""
        return any(held.dtype in HALVES for held in self.tensors.values())

    def widen(self) -> None:
        """Compute in float32 what is computed in half precision, from the same weights; see :mod:`.precision`.

        Copies that are made afterwards are in float32 as well.
        """
        if not self.is_half:
            return
        self.stored |= {name: held.dtype for name, held in self.tensors.items() if held.dtype in HALVES}
        widen_graph(self.module.traced_graph)
        self._renew(widened)
        self.module.recompile()

    def stored_type(self, site: WeightSite) -> torch.dtype:
        """Return the type that the network has the weights of a site in."""
        node = self.weight_node(site)[0]
        return self.stored.get(node, self.tensors[node].dtype)

    def _renew(self, change: Callable[[Tensor], Tensor]) -> None:
        for name in ("folds", "_folded"):
            self.__dict__.pop(name, None)
        self.module._apply(change)
        self._hold()

    def fill(self, network: nn.Module) -> None:
        """Take over the parameters and buffers of another network of the same modules, such as this one trained on."""
        self.module.load_state_dict(plain(network).state_dict())
        for name in ("folds", "_folded"):
            self.__dict__.pop(name, None)

    def weight_tensor(self, site: WeightSite) -> Tensor:
        """Return the weights (out, in / groups, *kernel) of a site."""
        return self.tensors[self.weight_node(site)[0]]

    def copy(self) -> TracedModule:
        """Return a copy of the network, as traced, that can be trained and returns what the network returns."""
        return trainable(self.module, self.structure)

    def node_of(self, label: str, *, old: bool = False) -> str:
        """Return the node of a call by its name, as measurements have it, or (``old``) packed networks of version 1.

        Raises
        ------
        DataError
            No call is called so.
        """
        names = self.call_names(old=old)
        if label not in names:
            raise DataError("no such activation in the network", value=label, hint=nearest(label, names))
        return names[label]

    def call_names(self, *, old: bool = False) -> dict[str, str]:
        """Return the nodes of the calls by all names that :meth:`node_of` knows."""
        named = {name: node.name for node, name in self._names.items()}
        named |= {self._label(node): node.name for node in self._names}
        before = {name: node.name for name, node in self._old_labels.items()}
        return named | before if old else before | named

    def is_rectified(self, node: str) -> bool:
        """Return whether the output of a call cannot be negative because of the calls that make it."""
        return is_rectified(self.nodes[node])

    def default_clip(self, node: str) -> float:
        """Return the clip value of an activation whose range nobody measured; from the batch-norm in front of it."""
        return clip_in_front(self.nodes[node], self._tensor)

    def _tensor(self, argument: object) -> Tensor | None:
        """Return the parameter or buffer that an argument of a call stands for."""
        return self.tensors.get(argument.name) if isinstance(argument, fx.Node) else None

    def weight_node(self, site: WeightSite) -> tuple[str, ...]:
        """Return the names of the nodes that hold the weights of a site."""
        tensor = attribute_of(self.module, site.parameter)
        return tuple(
            name
            for name, held in self.tensors.items()
            if held.data_ptr() == tensor.data_ptr() and held.shape == tensor.shape
        )

    # -- finding the sites ---------------------------------------------------------------------------------------

    def _networkx(self) -> nx.DiGraph:
        graph: nx.DiGraph = nx.DiGraph()
        for node in self._live:
            graph.add_node(node.name, op=op_of(node), module=module_of(node), shape=sample_shape(node))
            graph.add_edges_from((source.name, node.name) for source in node.all_input_nodes if source in self._live)
        return graph

    def _resolve(self, node: fx.Node) -> Iterator[fx.Node]:
        """Yield the tensors that ``node`` only moves, pools or concatenates."""
        if op_of(node) == "cat" or op_of(node) == "concat":
            for source in node.all_input_nodes:
                if source in self._live:
                    yield from self._resolve(source)
        elif op_of(node) in TRANSPARENT or (node.target is operator.getitem and _picks_part(node)):
            yield from self._resolve(node.all_input_nodes[0])
        elif node in self._live:
            yield node

    def _find_activations(self, residual: str) -> tuple[ActivationSite, ...]:
        read = {name for site in self.weights for use in site.uses for name in use.reads}
        tied: nx.Graph = nx.Graph()
        for node in self._live if residual == "tie" else ():
            pair = self._summands(node)
            if pair:
                read.update(part.name for part in pair)
                tied.add_edge(pair[0].name, pair[1].name)
        sites = {n.name: self._activation(n) for n in self._live if n.name in read}
        self.ties = tuple(
            tuple(sites[n].name for n in sites if n in part) for part in nx.connected_components(tied) if len(part) > 1
        )
        return tuple(sites.values())

    def _summands(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Return the two tensors that a residual addition adds, or None."""
        if op_of(node) not in _ADDS or len(node.all_input_nodes) != 2:
            return None
        first, second = node.all_input_nodes
        if first not in self._live or second not in self._live or sample_shape(first) != sample_shape(second):
            return None
        parts = [list(self._resolve(part)) for part in (first, second)]
        if any(len(p) != 1 or p[0].op == "placeholder" for p in parts) or parts[0] == parts[1]:
            return None
        return parts[0][0], parts[1][0]

    def _activation(self, node: fx.Node) -> ActivationSite:
        readers = [self._order[user] for user in self._readers(node) if user in self._order]
        steps = self._order[node], max(readers)
        return ActivationSite(self._label(node), node.name, sample_shape(node), *clip_of(node, self._tensor), steps)

    def _label(self, node: fx.Node) -> str:
        """Return the name of a call's output, which is no name of a weight."""
        maker = next((site for site in self.weights if [use.node for use in site.uses] == [node.name]), None)
        if maker is not None:
            return f"{maker.name}.output"
        base, mark, number = self._names[node].partition("#")
        clashes = base in {site.name for site in self.weights}
        return f"{base}.output{mark}{number}" if clashes else self._names[node]

    def _readers(self, node: fx.Node) -> Iterator[fx.Node]:
        """Yield the calls that need the tensor, through those that only view it."""
        yield node
        for user in node.users:
            yield user
            if op_of(user) in SHAPES | IDENTITIES or user.target is operator.getitem:
                yield from self._readers(user)


def _parameter(named: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in named:
        raise DataError("no such parameter in the network", value=name, hint=nearest(name, named))
    return named[name]


def _picks_part(node: fx.Node) -> bool:
    """Return whether a call picks what another one moved or pooled, not one of several things that it computed."""
    op, place = op_of(node.all_input_nodes[0]), node.args[1]
    return op in TRANSPARENT and not ("max_pool" in op and place == 1)
