"""The list of formats: shipped ones in one literal table, others by the entry-point group ``impq_opt.exchange``."""

from __future__ import annotations

import dataclasses
import importlib
from importlib.metadata import entry_points
from typing import Any

from impq_opt.errors import OptionError, nearest
from impq_opt.exchange.base import Format, Reader, Writer

__all__ = ["TABLE", "format_class", "format_names", "make_format"]

TABLE: dict[str, str] = {
    "autoround": "impq_opt.exchange.autoround:AutoRound",
    "compressed-tensors": "impq_opt.exchange.compressed_tensors:CompressedTensors",
    "csv": "impq_opt.exchange.tabular:Csv",
    "exllamav3": "impq_opt.exchange.exllamav3:ExLlamaV3",
    "gptqmodel": "impq_opt.exchange.gptqmodel:GptqModel",
    "llama.cpp": "impq_opt.exchange.llama_cpp:LlamaCpp",
    "mlx": "impq_opt.exchange.mlx:Mlx",
    "modelopt": "impq_opt.exchange.modelopt:ModelOpt",
    "onnxruntime": "impq_opt.exchange.onnxruntime:OnnxRuntime",
    "parquet": "impq_opt.exchange.tabular:Parquet",
    "torchao": "impq_opt.exchange.torchao:TorchAo",
}


def _registry() -> dict[str, str]:
    table = dict(TABLE)
    for entry in entry_points(group="impq_opt.exchange"):
        table.setdefault(entry.name, entry.value)
    return table


def format_class(name: str) -> type[Format]:
    """Return the class of the format called ``name``; raise OptionError with near matches."""
    table = TABLE if name in TABLE else _registry()
    if name not in table:
        raise OptionError("unknown format", where="format", value=name, hint=nearest(name, table))
    module, _, attribute = table[name].partition(":")
    found: type[Format] = getattr(importlib.import_module(module), attribute)
    return found


def format_names(*, reads: bool = False, writes: bool = False) -> tuple[str, ...]:
    """Return the names of all formats, or of those that can be read or written."""
    kinds = (Reader,) * reads + (Writer,) * writes
    return tuple(name for name in _registry() if all(issubclass(format_class(name), kind) for kind in kinds))


def make_format(name: str, **options: Any) -> Format:
    """Return the format called ``name`` with ``options``; unknown names and options raise with near matches."""
    kind = format_class(name)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # concrete formats are dataclasses
    for option in options:
        if option not in known:
            raise OptionError(
                f"unknown option of format {name!r}", value=option, hint=nearest(option, known) or "it has none"
            )
    return kind(**options)
