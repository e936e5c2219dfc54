"""Running a graph on given parameters, folded or not, while chosen calls are shown to a visitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from impq_opt.tracing.folding import Fold
from impq_opt.tracing.module import TracedModule

_DETACH = torch.ops.aten.detach.default

__all__ = ["Runner"]


class Runner(fx.Interpreter):
    """Runs the graph on given parameters and shows chosen calls to a visitor."""

    def __init__(
        self,
        module: TracedModule,
        visit: Any,
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
        return self._visit(n.name, out, args) if n.name in self._watch else out
