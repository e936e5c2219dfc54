"""Sums without rounding, roundings in a stated direction, and the compiled parts that speed them up."""
