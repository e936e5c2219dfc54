"""Back ends, one file each, by the name that ``--to`` takes.

A new one is a file with a function from a program to what it is written as, and a line in :data:`TARGETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from impq_opt.compile.targets.base import Compiled, Ran, Size, ran
from impq_opt.registry import look_up

__all__ = ["TARGETS", "Compiled", "Ran", "Size", "load_target", "ran"]

TARGETS: dict[str, str] = {
    "c": "impq_opt.compile.targets.c:compile_c",  # C99 without dependencies
    "onnx": "impq_opt.compile.targets.onnx:compile_onnx",  # exact; a type a precision
    "onnx-unsplit": "impq_opt.compile.targets.onnx:compile_onnx_unsplit",  # exact; a type a weight
    "onnx-qdq": "impq_opt.compile.targets.onnx_qdq:compile_onnx_qdq",  # real scales: fast, near the reference
    "onnx-qdq-unsplit": "impq_opt.compile.targets.onnx_qdq:compile_onnx_qdq_unsplit",
    "qonnx": "impq_opt.compile.targets.qonnx:compile_qonnx",  # exact; Quant nodes
}


def load_target(name: str) -> Callable[..., Compiled]:
    """Return the function that writes programs for a target; that of ``c`` takes bytes of ``ram``, too.

    Raises
    ------
    OptionError
        No such target, with near matches.
    """
    module, _, function = look_up(TARGETS, name, "target", "--to").partition(":")
    found: Callable[..., Compiled] = getattr(import_module(module), function)
    return found
