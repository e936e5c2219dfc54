"""The parts of calibration, one a file. Each is loaded when it is asked for.

A new one is a file with a frozen dataclass that derives from :class:`~impq_opt.calibrate.part.Calibration`, and a line
in ``TABLE``, or an entry point in the group ``impq_opt.calibrations`` of another package.
"""

from __future__ import annotations

from impq_opt.calibrate.part import Calibration
from impq_opt.registry import Registry

__all__ = ["TABLE", "calibration_class", "calibration_names", "load_calibration"]

TABLE: dict[str, str] = {
    "ranges": "impq_opt.calibrate.parts.ranges:Ranges",  # of weights, by squared gradients times errors
    "clips": "impq_opt.calibrate.parts.clips:Clips",  # of activations, by squared errors
    "statistics": "impq_opt.calibrate.parts.statistics:Statistics",  # of batch-norms
    "bias": "impq_opt.calibrate.parts.bias:Bias",  # the mean of each output
    "gptq": "impq_opt.calibrate.parts.gptq:GPTQ",  # codes by the error of what a layer gives
    "adaround": "impq_opt.calibrate.parts.adaround:AdaRound",  # codes learned by it
    "brecq": "impq_opt.calibrate.parts.brecq:BRECQ",  # codes learned by what residual blocks give
}

_registry = Registry[Calibration]("calibration", TABLE, "impq_opt.calibrations")
calibration_names, calibration_class = _registry.names, _registry.find


def load_calibration(spec: str | Calibration) -> Calibration:
    """Return the part that a text such as ``"statistics"`` or ``"gptq:damping=0.1"`` names.

    Raises
    ------
    OptionError
        Unknown names, options or values, with near matches.
    """
    return spec if isinstance(spec, Calibration) else _registry.read(spec)
