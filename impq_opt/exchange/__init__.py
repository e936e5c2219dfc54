"""Other tools' formats: their scores in, their configuration out. One small file a format, loaded when asked for."""

from impq_opt.exchange.base import LEFT_ALONE, Format, Precision, Reader, Writer
from impq_opt.exchange.fused import fused_ties
from impq_opt.exchange.registry import TABLE, format_names, make_format

__all__ = [
    "LEFT_ALONE",
    "TABLE",
    "Format",
    "Precision",
    "Reader",
    "Writer",
    "format_names",
    "fused_ties",
    "make_format",
]
