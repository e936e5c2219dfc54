"""From an allocation to code that computes in whole numbers, bit for bit."""

from impq_opt.compile.api import Agreement, Rounded, agreement, rounded_by, rounded_from
from impq_opt.compile.encoding import encoding_between, encoding_of
from impq_opt.compile.program import (
    Add,
    Concat,
    Encoding,
    Flatten,
    IntTensor,
    Layer,
    Move,
    Operation,
    Part,
    Pool,
    Program,
    Rescale,
)
from impq_opt.compile.reference import run, trace_program
from impq_opt.compile.reference_torch import run_torch

__all__ = [
    "Add",
    "Agreement",
    "Concat",
    "Encoding",
    "Flatten",
    "IntTensor",
    "Layer",
    "Move",
    "Operation",
    "Part",
    "Pool",
    "Program",
    "Rescale",
    "Rounded",
    "agreement",
    "encoding_between",
    "encoding_of",
    "rounded_by",
    "rounded_from",
    "run",
    "run_torch",
    "trace_program",
]
