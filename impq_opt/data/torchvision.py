"""The one place that imports torchvision.

torchvision's wheels are built for one torch build. A CUDA wheel beside a CPU torch fails at import with "operator
torchvision::nms does not exist", because the compiled half that declares two detection operators cannot be loaded.
Declaring them here lets everything that classification needs (models, transforms, data sets) be imported; the
operators themselves stay without an implementation.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from impq_opt.errors import MissingPackageError

__all__ = ["torchvision_module"]

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def _declare_operators() -> object:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for signature in _OPERATORS:
        library.define(signature)
    return library  # the operators live as long as this object


def torchvision_module(name: str = "") -> Any:
    """Import ``torchvision`` or one of its modules, e.g. ``"models"`` or ``"transforms.v2"``.

    Raises
    ------
    MissingPackageError
        torch or torchvision is not installed.
    """
    path = f"torchvision.{name}" if name else "torchvision"
    try:
        return importlib.import_module(path)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    except ModuleNotFoundError as error:
        package = (error.name or "torchvision").partition(".")[0]
        raise MissingPackageError(package, path, "'impq-opt[torch]'") from None
    for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _declare_operators()
    return importlib.import_module(path)
