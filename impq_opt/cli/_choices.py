"""What the values of options may be, for completion; what only torch's rooms know stands here, held by a test."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from typing import Any

from cyclopts import Parameter

__all__ = [
    "CALIBRATIONS",
    "CHOOSERS",
    "COSTS",
    "DATA",
    "ENCODINGS",
    "ESTIMATORS",
    "FORMATS",
    "GRIDS",
    "GROUPS",
    "METHODS",
    "METRICS",
    "NETWORKS",
    "NETWORK_NAMES",
    "POLICIES",
    "PROBLEMS",
    "PROBLEMS_AND_NETWORKS",
    "READERS",
    "RECIPES",
    "SOLVERS",
    "TARGETS",
    "TARGET_NAMES",
    "WRITERS",
    "choices",
]

METRIC_NAMES = (
    "impq", "sakr", "impq-code", "gaussian", "measured-error", "hawq", "fisher", "fit", "kl", "output-error",
    "loss-delta",
)  # fmt: skip
NETWORK_NAMES = (
    "resnet20-fashion-mnist",
    "resnet20-cifar10",
    "resnet20",
    "resnet8",
    "vgg-small",
    "mobilenet-v1",
    "mobilenet-v1-tf",
    "small-cnn",
)
TARGET_NAMES = ("c", "onnx", "onnx-unsplit", "onnx-qdq", "onnx-qdq-unsplit", "qonnx")
METHOD_NAMES = (
    "mid-rise", "zero", "symmetric", "integer", "asymmetric", "affine", "normal", "bwn", "twn", "ttq", "elq", "dorefa",
    "pact", "lq-net", "dbq", "uniq", "rq", "rq-st",
)  # fmt: skip
CALIBRATION_NAMES = ("ranges", "clips", "statistics", "bias", "gptq", "adaround", "brecq")
POLICY_NAMES = ("slides", "iterative", "authors-code", "haq")
RECIPE_NAMES = (
    "mobilenet-v1-imagenet", "mobilenet-v1-imagenet-activations", "resnet20-cifar10", "resnet20-cifar10-activations",
    "resnet20-fashion-mnist", "resnet8-fashion-mnist", "vgg-small-cifar10",
)  # fmt: skip
DATA_NAMES = ("cifar10", "digits", "fashion-mnist")
ESTIMATOR_NAMES = ("importance", "signs", "batch", "exact", "top")


def choices(*names: str) -> Parameter:
    """Return what completes an option by these names."""
    return Parameter(completer=lambda _: names)


def _asked(names: Callable[[], Iterable[str]], *, files: bool = False, lists: bool = False) -> Parameter:
    """Return what completes an option by names that are looked up then, by files, and after a comma again."""

    def complete(context: Any) -> list[str]:
        written = context.incomplete
        before = written[: written.rfind(",") + 1] if lists else ""
        found = [before + name for name in names()]
        return found + (_files(written) if files else [])

    return Parameter(completer=complete)


def _files(written: str) -> list[str]:
    return [path + os.sep * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(written)}*"))]  # noqa: PTH207


def _theirs(names: tuple[str, ...], group: str) -> Callable[[], list[str]]:
    """Return names of this package, then those that other packages bring."""

    def all_names() -> list[str]:
        from importlib.metadata import entry_points

        return [*names, *(entry.name for entry in entry_points(group=group))]

    return all_names


def _problems() -> tuple[str, ...]:
    from impq_opt import problems

    return problems.names()


def _solvers() -> tuple[str, ...]:
    from impq_opt.solvers import solver_names

    return solver_names()


def _formats(**ways: bool) -> Callable[[], tuple[str, ...]]:
    def names() -> tuple[str, ...]:
        from impq_opt.exchange import format_names

        return tuple(format_names(**ways))

    return names


def _encodings() -> tuple[str, ...]:
    from impq_opt.encodings import encoding_names

    return encoding_names()


def _costs() -> tuple[str, ...]:
    from impq_opt.costs import cost_names

    return cost_names()


PROBLEMS = _asked(_problems, files=True)
PROBLEMS_AND_NETWORKS = _asked(lambda: (*_problems(), *NETWORK_NAMES), files=True)
SOLVERS = _asked(_solvers)
FORMATS, READERS, WRITERS = _asked(_formats()), _asked(_formats(reads=True)), _asked(_formats(writes=True))
CHOOSERS = _asked(_formats(chooses=True))
COSTS = _asked(_costs)
ENCODINGS = _asked(_encodings, lists=True)
METRICS = _asked(_theirs(METRIC_NAMES, "impq_opt.metrics"), lists=True)
METHODS = _asked(_theirs(METHOD_NAMES, "impq_opt.methods"))
CALIBRATIONS = _asked(_theirs(CALIBRATION_NAMES, "impq_opt.calibrations"), lists=True)
NETWORKS = choices(*NETWORK_NAMES)
DATA = _asked(lambda: DATA_NAMES, files=True)
GRIDS = _asked(lambda: ["auto", *_theirs(METHOD_NAMES, "impq_opt.methods")()])
GROUPS = choices("layer", "kernel", "slice", "block:")
ESTIMATORS = choices(*ESTIMATOR_NAMES)
POLICIES = _asked(lambda: dict.fromkeys([*_theirs(POLICY_NAMES, "impq_opt.policies")(), *_solvers()]), lists=True)
TARGETS = choices(*TARGET_NAMES)
RECIPES = _asked(lambda: RECIPE_NAMES, files=True)
