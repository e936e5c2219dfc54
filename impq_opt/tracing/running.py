"""Running a graph on given parameters, folded or not: with chosen calls shown to a visitor, or from call to call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast

from impq_opt.tracing.folding import Fold
from impq_opt.tracing.module import TracedModule

Visit = Callable[[str, Tensor, tuple[Any, ...]], Tensor]
_DETACH = torch.ops.aten.detach.default

__all__ = ["Runner", "Visit", "Walk"]


class Runner(fx.Interpreter):
    """Runs the graph on given parameters and shows chosen calls to a visitor."""

    def __init__(
        self,
        module: TracedModule,
        visit: Visit | None,
        tensors: dict[str, Tensor],
        watch: frozenset[str],
        folds: Mapping[str, Fold],
    ) -> None:
        super().__init__(module, graph=module.traced_graph)
        self._visit, self._tensors, self._watch, self._folds = visit, tensors, watch, folds
        self._folded = {fold.norm for fold in folds.values()}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self._tensors:
            return self._tensors[n.name]
        if n.target is _DETACH:  # noise in front of it reaches the logits all the same
            return self.fetch_args_kwargs_from_env(n)[0][0]
        if n.name not in self._watch and n.name not in self._folds and n.name not in self._folded:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.name in self._folds:
            fold = self._folds[n.name]
            args = (args[0], fold.weight, fold.bias, *args[3:])
        out = args[0] if n.name in self._folded else getattr(self, n.op)(n.target, args, kwargs)
        return self._visit(n.name, out, args) if self._visit and n.name in self._watch else out


class Walk:
    """A pass that stops on its way, to be finished as often as wanted with something changed from there on.

    What lies in front of the changes is computed once. No more is held than a pass holds at that call, twice while it
    is finished.

    Parameters
    ----------
    module : TracedModule
    tensors : dict of str to Tensor
        Parameters and buffers, by node.
    folds : mapping of str to Fold
        Layers that take in the batch-norm behind them, also where their weights are changed.
    given : tuple of Tensor
        The inputs, in the order of the graph's.
    """

    def __init__(
        self, module: TracedModule, tensors: dict[str, Tensor], folds: Mapping[str, Fold], given: tuple[Tensor, ...]
    ) -> None:
        self._module, self._tensors, self._folds = module, tensors, folds
        self._nodes = list(module.traced_graph.nodes)
        self._order = {node.name: place for place, node in enumerate(self._nodes)}
        last = {source: node for node in self._nodes for source in node.all_input_nodes}
        self._ended: dict[fx.Node, list[fx.Node]] = {}
        for source, node in last.items():
            self._ended.setdefault(node, []).append(source)
        entries = [node for node in self._nodes if node.op == "placeholder"]
        self._runner = self._running({})
        self._runner.env = dict(zip(entries, given, strict=True))
        self._place = 0

    def place(self, node: str) -> int:
        """Return the number of a call in the order of the pass."""
        return self._order[node]

    def first_reader(self, nodes: Iterable[str]) -> int:
        """Return the number of the first call that reads any of ``nodes``."""
        return min(self._order[user.name] for node in nodes for user in self._nodes[self._order[node]].users)

    def stop_before(self, place: int) -> None:
        """Go on to the call of number ``place``, which is not made; there is no way back."""
        self._run(self._runner, self._place, place)
        self._place = place

    def output(self, node: str) -> Any:
        """Return what the call in front of the stop has put out, under the name of its node."""
        return self._runner.env[self._nodes[self._order[node]]]

    def finish(
        self,
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
        outputs: Mapping[str, Any] = MappingProxyType({}),
        visit: Visit | None = None,
        watch: frozenset[str] = frozenset(),
    ) -> tuple[Any, ...]:
        """Return what the network puts out from here on.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            Values in place of parameters that nothing has read, by node.
        outputs : mapping of str to object
            Values in place of the outputs of calls that have been made, by node.
        visit : callable (node, output, inputs) -> Tensor, optional
            Called after each node named in ``watch`` that is yet to come; what it returns goes on in place of the
            output.
        """
        runner = self._running(tensors, visit, watch)
        changed = {self._nodes[self._order[name]]: value for name, value in {**tensors, **outputs}.items()}
        runner.env = self._runner.env | changed
        made: tuple[Any, ...] = self._run(runner, self._place, len(self._nodes))
        self._enter_again()
        return made

    def _running(
        self, tensors: Mapping[str, Tensor], visit: Visit | None = None, watch: frozenset[str] = frozenset()
    ) -> Runner:
        folds = self._folds
        if tensors:
            folds = {name: self._refolded(name, fold, tensors) for name, fold in folds.items()}
        return Runner(self._module, visit, {**self._tensors, **tensors}, watch, folds)

    def _refolded(self, name: str, fold: Fold, tensors: Mapping[str, Tensor]) -> Fold:
        weight = self._nodes[self._order[name]].args[1]
        assert isinstance(weight, fx.Node)
        return fold.of_weight(tensors[weight.name]) if weight.name in tensors else fold

    def _run(self, runner: Runner, start: int, stop: int) -> Any:
        made = None
        for node in self._nodes[start:stop]:
            if node.op != "placeholder":
                made = runner.env[node] = runner.run_node(node)
            for source in self._ended.get(node, ()):
                runner.env.pop(source, None)
        return made

    def _enter_again(self) -> None:
        """Enter the regions of autocast that this pass is in: the finish has left them."""
        for node in self._nodes[: self._place]:
            left = any(user.target is _exit_autocast and self._order[user.name] < self._place for user in node.users)
            if node.target is _enter_autocast and not left:
                self._runner.env[node] = self._runner.run_node(node)
