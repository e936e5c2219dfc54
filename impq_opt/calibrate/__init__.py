"""Calibration: what is done to a quantized network without training or labels, in parts chosen by what they measure."""

from impq_opt.calibrate.api import STEPS, Calibrated, Drawn, Step, calibrate, drawn, refer
from impq_opt.calibrate.part import Calibration, Change
from impq_opt.calibrate.parts import TABLE, calibration_class, calibration_names, load_calibration
from impq_opt.calibrate.work import Closeness, Reference, Work

__all__ = [
    "STEPS",
    "TABLE",
    "Calibrated",
    "Calibration",
    "Change",
    "Closeness",
    "Drawn",
    "Reference",
    "Step",
    "Work",
    "calibrate",
    "calibration_class",
    "calibration_names",
    "drawn",
    "load_calibration",
    "refer",
]
