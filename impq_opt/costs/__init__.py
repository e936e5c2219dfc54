"""Cost terms: what a precision costs, declared by name, each with its unit and source."""

from impq_opt.costs.terms import (
    COSTS,
    ActivationMemory,
    CostTerm,
    Pairs,
    Representational,
    Storage,
    TableCost,
    cost_named,
)
from impq_opt.costs.units import format_quantity, parse_quantity

__all__ = [
    "COSTS",
    "ActivationMemory",
    "CostTerm",
    "Pairs",
    "Representational",
    "Storage",
    "TableCost",
    "cost_named",
    "format_quantity",
    "parse_quantity",
]
