"""Cost terms: what a precision costs, declared by name, each with its unit and source."""

from impq_opt.costs.compiled import Flash, Ram
from impq_opt.costs.hardware import BitFusionCycles, MpicCycles
from impq_opt.costs.lookup import LookupCost
from impq_opt.costs.memory import PeakActivationMemory
from impq_opt.costs.operations import INPUT_BITS, Adders, BitOperations, Slides
from impq_opt.costs.registry import COSTS, cost_named, cost_names
from impq_opt.costs.terms import (
    ActivationMemory,
    CostTerm,
    Pairs,
    PairTables,
    Representational,
    Storage,
    TableCost,
)
from impq_opt.costs.units import format_quantity, is_bare, is_mean_bits, parse_quantity, readable_unit

__all__ = [
    "COSTS",
    "INPUT_BITS",
    "ActivationMemory",
    "Adders",
    "BitFusionCycles",
    "BitOperations",
    "CostTerm",
    "Flash",
    "LookupCost",
    "MpicCycles",
    "PairTables",
    "Pairs",
    "PeakActivationMemory",
    "Ram",
    "Representational",
    "Slides",
    "Storage",
    "TableCost",
    "cost_named",
    "cost_names",
    "format_quantity",
    "is_bare",
    "is_mean_bits",
    "parse_quantity",
    "readable_unit",
]
