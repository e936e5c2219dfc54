"""Prices for limits: hulls of single groups, the oracle at given prices, and the dual that moves them."""
