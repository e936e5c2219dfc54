"""Batch-norm statistics of the quantized network in place of those of the float one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.nn.utils import parametrize

from impq_opt.calibrate.graphs import Norm, inputs_of, norms_of
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.work import Closeness, Work
from impq_opt.data.batch import Several
from impq_opt.tracing.module import TracedModule

__all__ = ["Statistics", "reestimate"]


@dataclass(frozen=True)
class Statistics(Calibration):
    """Estimate the running statistics of batch-norms again, in the quantized network.

    Rounded weights shift and stretch what the layers give; the norms behind them subtract the mean and divide by the
    deviation of what the *float* layers gave. With statistics of their own they take both out again. Each norm
    normalizes by its batch while the batches pass, all else is in eval mode, and means and variances are averaged over
    the batches.

    Data of another kind than the network was trained on have other statistics, which do harm by themselves. So the
    float network is held against a copy of it that went through the same; where that copy is further from it than the
    quantized network is, nothing is changed.
    """

    name = "statistics"
    summary = "batch-norm statistics estimated again in the quantized network"
    source = "Sun et al., Hybrid 8-bit floating point training (NeurIPS 2019); Finkelstein et al. (2019)"

    def apply(self, work: Work) -> Change:
        norms = norms_of(work.quantized)
        if not norms:
            return Change(notes=("the network has no batch-norm with running statistics",))
        again, now = work.reference.known(self.name, lambda: self._again(work)), work.now
        if not again.kl < now.kl:
            return Change(
                refused="the float network does not survive it on these data: with statistics of them it decides as "
                f"before on {again.agreement:.1%} of held-out samples, at KL {again.kl:.3g} nat; the quantized network "
                f"as it is decides as the float one on {now.agreement:.1%}, at KL {now.kl:.3g} nat"
            )
        reestimate(work.quantized, work.batches(self.name, passes=2, done=1), norms)
        return Change(tuple(norm.name for norm in norms.values()))

    def _again(self, work: Work) -> Closeness:
        """Return how close the float network with statistics of the samples is to what it is."""
        floats = work.float.copy().eval()
        reestimate(floats, work.batches(self.name, passes=2), norms_of(floats))
        return work.closeness(floats)


def reestimate(module: TracedModule, batches: Iterable[Tensor | Several], norms: dict[fx.Node, Norm]) -> None:
    """Give batch-norms the means over samples of the statistics of their batches, in place.

    Parameters
    ----------
    module : TracedModule
        In eval mode.
    batches : iterable of Tensor (n, ...) or Several
    norms : dict of Node to Norm
        The calls, in the graph of ``module``.
    """
    passing = _Reestimating(module, norms)
    with parametrize.cached():  # weights are rounded once, not for every batch
        for batch in batches:
            passing.run(*inputs_of(module, batch))


class _Reestimating(fx.Interpreter):
    def __init__(self, module: TracedModule, norms: dict[fx.Node, Norm]) -> None:
        super().__init__(module, graph=module.traced_graph)
        self.norms = norms
        self.seen: dict[int, int] = {}  # samples that each norm has seen, by its running mean

    def run_node(self, n: fx.Node) -> Any:
        if n not in self.norms:
            return super().run_node(n)
        x, gamma, beta, mean, variance, _, _, *rest = self.fetch_args_kwargs_from_env(n)[0]
        seen = self.seen[id(mean)] = self.seen.get(id(mean), 0) + len(x)
        assert callable(n.target)
        return n.target(x, gamma, beta, mean, variance, True, len(x) / seen, *rest)
