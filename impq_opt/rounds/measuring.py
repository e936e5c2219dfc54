"""How rounds measure: the project's own sensitivities, with the choices that fit a loop."""

from __future__ import annotations

from torch import nn

from impq_opt.data import Dataset
from impq_opt.measure import Sampling, measure, structure_of
from impq_opt.measure.estimators import Estimator
from impq_opt.measure.grouping import Grouping
from impq_opt.problem.problem import Problem
from impq_opt.rounds.latent import RESTATED
from impq_opt.rounds.loop import Measure
from impq_opt.rounds.settings import Settings
from impq_opt.training.samples import Samples

__all__ = ["measurer", "surveyor"]


def measurer(settings: Settings) -> Measure:
    """Return the measurement that ``settings`` describe: granularity, metric, estimator, and samples.

    Activations are those that convolutions and linear layers read; residual sums stay at the accumulator's precision,
    as in the paper. Sensitivities are the float network's whose weights the loop has set to quantized values.

    Raises
    ------
    OptionError
        An unknown granularity or estimator: now, not when training is over.
    """
    how, bits = settings.measuring, settings.quantizing.bits
    groups, estimator = Grouping(how.granularity), Estimator(how.estimator)
    # The loop knows the latent weights, and puts their rounding errors in.
    metric = RESTATED[how.metric][0] if how.metric in RESTATED else how.metric

    def measured(network: nn.Module, data: Samples, seed: int) -> Problem:
        assert isinstance(data, Dataset)
        device = next(network.parameters()).device
        return measure(
            network,
            data,
            groups=groups,
            metric=metric,
            estimator=estimator,
            sampling=Sampling(samples=how.measure_samples, concede=how.concede, seed=seed),
            bits=bits,
            residual="accumulate",
            grid="mid-rise",
            assume_noise=True,  # these weights may be quantized ones, which stand for the latent ones
            device=str(device),
        )

    return measured


def surveyor(settings: Settings) -> Measure:
    """Return what stands for a measurement where nothing is to be chosen: the same groups, and no damages.

    Raises
    ------
    OptionError
        An unknown granularity.
    """
    groups, bits = Grouping(settings.measuring.granularity), settings.quantizing.bits

    def surveyed(network: nn.Module, data: Samples, seed: int) -> Problem:
        assert isinstance(data, Dataset)
        device = str(next(network.parameters()).device)
        options = {"groups": groups, "bits": bits, "residual": "accumulate", "grid": "mid-rise", "assume_noise": True}
        return structure_of(network, data, device=device, seed=seed, **options)

    return surveyed
