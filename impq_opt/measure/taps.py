"""One forward pass with taps, and backward passes that leave squared per-sample gradients behind.

Only gradients of tensors are propagated, none of parameters: the weights' squared gradients are formed in hooks, as
each layer's output gradient arrives, and the gradient is freed again. So a pass holds the tensors of a forward pass
and one layer's gradient, less than a training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from impq_opt.measure.calls import call_gradients, is_table, table_squares
from impq_opt.measure.contraction import batch_gradient, gradients, kernel_norms, weight_gradient, weight_squares
from impq_opt.measure.shifts import Shifts
from impq_opt.tracing.graph import Network
from impq_opt.tracing.sites import ActivationSite, Use, WeightSite

__all__ = ["Taps"]


class Taps:
    """The sites of one batch.

    Parameters
    ----------
    network : Network
    fine : bool
        Weights get the sums over the batch of squared gradients of each weight, (out, in / groups * prod(kernel));
        else they get the squared norms of each sample and output kernel, (n, out).
    whole : bool
        The batch is one sample: gradients are summed over it before they are squared (per-batch probes).
    shifts : Shifts, optional
        Rounding errors whose effect is wanted as well.
    squares : bool
        Whether squared gradients are wanted, of weights and activations; without, only what errors do is told.
    """

    def __init__(
        self,
        network: Network,
        *,
        fine: bool = False,
        whole: bool = False,
        shifts: Shifts | None = None,
        squares: bool = True,
    ) -> None:
        self.network, self.fine, self.whole, self._errors, self._squares = network, fine, whole, shifts, squares
        self.weights: dict[str, Tensor] = {}
        self.activations: dict[str, Tensor] = {}
        self._partial: dict[str, tuple[int, Tensor]] = {}
        self._sums: dict[str, Tensor] = {}
        self._calls: dict[str, list[tuple[WeightSite, Use]]] = {}
        for site in network.weights:
            for use in site.uses:
                self._calls.setdefault(use.node, []).append((site, use))
        self._sites = {site.node: site for site in network.activations if squares}
        # A layer whose own output is watched does not take in what follows.
        self._folds = {node: fold for node, fold in network.folds.items() if node not in self._sites}
        self.watch = frozenset(self._calls) | frozenset(self._sites)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) that carry the graph of the taps."""

        def visit(node: str, out: Tensor, inputs: tuple[Any, ...]) -> Tensor:
            if isinstance(out, tuple):
                return self._tapped(node, out, inputs)
            if not out.requires_grad:  # before the first tap: the gradient need not go further back
                out = out.detach().requires_grad_()
            for site, use in self._calls.get(node, ()):
                if use.operand:
                    out.register_hook(self._call_hook(site, use, inputs, None))
                else:
                    out.register_hook(self._weight_hook(site, use, inputs[0].detach(), len(x)))
            if node in self._sites:
                out.register_hook(self._activation_hook(self._sites[node], len(x)))
            return out

        return self.network.run(x, visit, watch=self.watch, folds=self._folds)

    @property
    def shifts(self) -> dict[str, Tensor]:
        """Squares (n, groups, K) of what rounding errors do to the scalar, by weight site."""
        return {name: total.square() for name, total in self._sums.items()}

    @property
    def signed(self) -> dict[str, Tensor]:
        """What rounding errors do to the scalar (n, groups, K), by weight site."""
        return self._sums

    def _tapped(self, node: str, outputs: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """Return the outputs of a call that has several, with a hook on each.

        Hooks are on views: one output may be computed from another, whose gradient then has a part that is not outside.
        """
        tapped = [out.view_as(out) if out.requires_grad else out.detach().requires_grad_() for out in outputs]
        for site, use in self._calls[node]:
            for place, out in enumerate(tapped):
                out.register_hook(self._call_hook(site, use, inputs, place))
        return tuple(tapped)

    def backward(self, scalar: Tensor, *, keep: bool = False) -> None:
        """Propagate ``scalar``; ``weights`` and ``activations`` then hold its squared gradients, by name.

        Sites that the scalar does not depend on are absent. ``keep`` allows another backward pass.
        """
        self.weights, self.activations, self._partial, self._sums = {}, {}, {}, {}
        if scalar.requires_grad:
            torch.autograd.backward(scalar, retain_graph=keep)

    def _weight_hook(self, site: WeightSite, use: Use, x: Tensor, samples: int) -> Callable[[Tensor], None]:
        layout = self.network.layouts[use.node]
        crowded = bool(use.dimensions) and layout.order != "alone"  # several pictures a sample
        fold = self._folds.get(use.node)
        scale = None if fold is None else fold.scale.to(fold.weight.dtype)

        def hook(grad: Tensor) -> None:
            grad, inputs = grad.detach(), x.to(grad.dtype)
            if self.whole:
                gradient = batch_gradient(grad, inputs, site.shape, use)
                self._shift(site, [gradient], scale)
                self._sum_up(site, gradient, scale)
                return
            if crowded:
                rows = weight_gradient(grad, inputs, site.shape, use)
                gradient = layout.by_sample(rows, samples).sum(1)
                self._shift(site, [gradient], scale)
                self._sum_up(site, gradient, scale)
                return
            grad, inputs = layout.by_sample(grad, samples), layout.by_sample(inputs, samples)
            self._shift(site, gradients(grad, inputs, site.shape, use), scale)
            if not self._squares:
                return
            if len(site.uses) > 1:
                self._sum_up(site, weight_gradient(grad, inputs, site.shape, use), scale)
            elif self.fine:
                squares = weight_squares(grad, inputs, site.shape, use)
                self.weights[site.name] = squares if scale is None else squares * scale[:, None] ** 2
            else:
                norms = kernel_norms(grad, inputs, site.shape, use)
                self.weights[site.name] = norms if scale is None else norms * scale**2

        return hook

    def _call_hook(
        self, site: WeightSite, use: Use, inputs: tuple[Any, ...], place: int | None
    ) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            if torch.equal(grad, torch.zeros_like(grad)):  # an output that nobody reads
                return
            grad = grad.detach()
            self._shift(site, self._through(site, use, inputs, grad, place))
            if not self._squares:
                return
            alone = len(site.uses) == 1 and place is None and not self.whole
            if alone and is_table(self.network, use):
                layout = self.network.layouts[use.node]
                indices, slope = (layout.by_sample(part, 0) for part in (inputs[1], grad.float()))
                self.weights[site.name] = table_squares(indices, slope, site.shape, fine=self.fine)
                return
            parts = self._through(site, use, inputs, grad, place)
            if not alone:
                self._sum_up(site, torch.cat(list(parts)), None)
            elif self.fine:
                self.weights[site.name] = torch.stack([part.square().sum(0) for part in parts]).sum(0)
            else:
                self.weights[site.name] = torch.cat([part.square().sum(2) for part in parts])

        return hook

    def _through(
        self, site: WeightSite, use: Use, inputs: tuple[Any, ...], grad: Tensor, place: int | None
    ) -> Iterator[Tensor]:
        """Yield the gradients (n, out, inputs) of a weight through a call, of some samples each, or of the batch."""
        parts = call_gradients(self.network, site, use, inputs, grad, place)
        if not self.whole:
            yield from parts
            return
        yield torch.stack([part.sum(0) for part in parts]).sum(0, keepdim=True)

    def _sum_up(self, site: WeightSite, gradient: Tensor, scale: Tensor | None) -> None:
        """Add the gradients (n, out, inputs) of a shared weight over its uses before squaring them.

        ``scale`` (out,) is what the weight is multiplied by where the layer has taken in a batch-norm.
        """
        gradient = gradient if scale is None else gradient * scale[:, None]
        uses, total = self._partial.get(site.name, (0, None))
        total = gradient if total is None else total + gradient
        self._partial[site.name] = uses + 1, total
        self.weights[site.name] = total.square().sum(0 if self.fine else 2)

    def _shift(self, site: WeightSite, gradients: Iterable[Tensor], scale: Tensor | None = None) -> None:
        """Add what the rounding errors of a weight do through one of its uses.

        ``gradients`` (n, out, inputs) are those of some samples each, and read only where the errors are wanted.
        """
        if self._errors is None or site.name not in self._errors.errors:
            return
        errors = self._errors if scale is None else self._errors.scaled(site, scale)
        part = torch.cat([errors.of_gradient(site, some) for some in gradients])
        self._sums[site.name] = self._sums[site.name] + part if site.name in self._sums else part

    def _activation_hook(self, site: ActivationSite, samples: int) -> Callable[[Tensor], None]:
        layout = self.network.layouts[site.node]

        def hook(grad: Tensor) -> None:
            squares = layout.by_sample(grad.detach(), samples).flatten(1)
            squares = squares.to(torch.promote_types(squares.dtype, torch.float32)).square()
            self.activations[site.name] = squares.sum(1)

        return hook
