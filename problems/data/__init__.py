"""Shipped instances, each a problem file with its arrays beside it."""
