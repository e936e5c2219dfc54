"""Other tools' formats: scores and choices in, configurations out. One small file a format, loaded when asked for."""

from impq_opt.exchange.base import LEFT_ALONE, Format, Precision, Reader, Writer
from impq_opt.exchange.choice import Chooser
from impq_opt.exchange.fused import fused_ties
from impq_opt.exchange.registry import TABLE, format_names, make_format, writer_of

__all__ = [
    "LEFT_ALONE",
    "TABLE",
    "Chooser",
    "Format",
    "Precision",
    "Reader",
    "Writer",
    "format_names",
    "fused_ties",
    "make_format",
    "writer_of",
]
