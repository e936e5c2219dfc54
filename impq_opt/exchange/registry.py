"""The list of formats: shipped ones in one literal table, others by the entry-point group ``impq_opt.exchange``."""

from __future__ import annotations

from typing import Any

from impq_opt.errors import OptionError
from impq_opt.exchange.base import Format, Reader, Writer
from impq_opt.exchange.choice import Chooser
from impq_opt.registry import Registry

__all__ = ["TABLE", "format_class", "format_names", "make_format", "writer_of"]

TABLE: dict[str, str] = {
    "autoround": "impq_opt.exchange.autoround:AutoRound",
    "compressed-tensors": "impq_opt.exchange.compressed_tensors:CompressedTensors",
    "csv": "impq_opt.exchange.tabular:Csv",
    "exllamav3": "impq_opt.exchange.exllamav3:ExLlamaV3",
    "gguf": "impq_opt.exchange.gguf:Gguf",
    "gptqmodel": "impq_opt.exchange.gptqmodel:GptqModel",
    "llama.cpp": "impq_opt.exchange.llama_cpp:LlamaCpp",
    "mlx": "impq_opt.exchange.mlx:Mlx",
    "modelopt": "impq_opt.exchange.modelopt:ModelOpt",
    "onnxruntime": "impq_opt.exchange.onnxruntime:OnnxRuntime",
    "parquet": "impq_opt.exchange.tabular:Parquet",
    "torchao": "impq_opt.exchange.torchao:TorchAo",
}


_FORMATS: Registry[Format] = Registry("format", TABLE, "impq_opt.exchange")

format_class = _FORMATS.find


def format_names(*, reads: bool = False, writes: bool = False, chooses: bool = False) -> tuple[str, ...]:
    """Return the names of all formats, or of those whose scores or choices can be read, or that can be written."""
    kinds: tuple[type[Format], ...] = (Reader,) * reads + (Writer,) * writes + (Chooser,) * chooses
    return tuple(name for name in _FORMATS.names() if all(issubclass(format_class(name), kind) for kind in kinds))


def writer_of(spec: str) -> Writer:
    """Return the target that a text names, options behind a colon: ``torchao:group_size=32``.

    Raises
    ------
    OptionError
        An unknown name, option or value, or a format that is only read.
    """
    found = _FORMATS.read(spec)
    if not isinstance(found, Writer):
        raise OptionError("is not written", where="for", value=spec, hint=", ".join(format_names(writes=True)))
    return found


def make_format(name: str, **options: Any) -> Format:
    """Return the format called ``name`` with ``options``; unknown names and options raise with near matches."""
    return _FORMATS.make(name, **options)
