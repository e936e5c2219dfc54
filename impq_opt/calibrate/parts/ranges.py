"""Ranges of weights by what rounding errors do to the decisions, and not by the largest weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from impq_opt.calibrate.layers import Reasons, quantized_sites
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.work import Work
from impq_opt.data.calling import call, logits_of
from impq_opt.quantize.methods.checks import check_choice
from impq_opt.quantize.methods.uniform import WeightQuantizer

__all__ = ["Ranges", "squared_gradients"]

_TOGETHER = 8  # samples whose gradients are added before they are squared


@dataclass(frozen=True)
class Ranges(Calibration):
    """Give each range of weights the scale at which what rounding errors do is least, and hold it from then on.

    The squared error of a weight counts as much as the mean square of the gradient there: the diagonal of the Fisher
    information, by which an error makes the decisions diverge to second order, those of other weights aside. Scales
    are looked for as for ``statistic=mse``, among 64 of which the largest is that of the range as it is.

    Grids that are held already are left alone, so this goes before steps that choose codes.

    Parameters
    ----------
    by : {"fisher", "error"}
        Squared gradients times squared errors, or squared errors alone.
    """

    name = "ranges"
    summary = "scales of weights by squared gradients times rounding errors"
    source = "Kim et al., SqueezeLLM (ICML 2024), section 4.1, for steps that are equal; gradients as in Sophia"

    by: str = "fisher"

    def __post_init__(self) -> None:
        check_choice("ranges.by", self.by, ("fisher", "error"))

    def apply(self, work: Work) -> Change:
        squares = squared_gradients(work, self.name) if self.by == "fisher" else {}
        changed, left = [], Reasons()
        for site, weight in quantized_sites(work.quantized, work.float):
            quantizer, latent = weight.quantizer, weight.latent
            if not isinstance(quantizer, WeightQuantizer):
                left.add(f"rounded by {quantizer.method.name}, which has other levels than equal steps", site.name)
            elif quantizer.held:
                left.add("its grid is held already", site.name)
            elif self.by == "fisher" and site.parameter not in squares:
                left.add("no gradient arrives", site.name)
            else:
                quantizer.hold(quantizer.fitted(latent, squares.get(site.parameter, torch.ones_like(latent))))
                changed.append(site.name)
        return Change(tuple(changed), left.notes())


def squared_gradients(work: Work, what: str) -> dict[str, Tensor]:
    """Return by parameter the mean square of the gradient of each weight of the float network, in units of its mean.

    Labels are drawn from the network's own probabilities, so that gradients of samples are independent and of mean
    zero, and the square of a sum of them has the mean of the sum of their squares (Liu et al., Sophia, ICLR 2024,
    algorithm 2). Weights that no gradient arrives at are left out.

    Parameters
    ----------
    work : Work
    what : str
        Is going on.
    """
    network = work.float.copy().eval()
    parameters = {site.parameter: network.get_parameter(site.parameter) for site in work.float.weights}
    totals: dict[str, Tensor] = {}
    drawing = torch.Generator().manual_seed(0)
    for batch in work.batches(what):
        for x in batch.split(_TOGETHER):
            with torch.enable_grad():
                for parameter in parameters.values():
                    parameter.requires_grad_().grad = None
                logits = logits_of(call(network, x)).float()
                probabilities = logits.detach().softmax(1).cpu()
                labels = torch.multinomial(probabilities, 1, generator=drawing)[:, 0].to(logits.device)
                cross_entropy(logits, labels, reduction="sum").backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    square = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32)).square()
                    totals[name] = totals[name] + square if name in totals else square
    means = {name: float(total.mean()) for name, total in totals.items()}
    return {name: total / means[name] for name, total in totals.items() if 0 < means[name] < float("inf")}
