"""From an allocation to code that computes in whole numbers, bit for bit."""

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

__all__ = [
    "Add",
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
    "run",
    "trace_program",
]
