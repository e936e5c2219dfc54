"""Verbs on a problem and an allocation: why, the frontier, accuracy against cost, what standard errors mean."""
