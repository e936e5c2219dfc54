"""The strategies that take moments: those that all strategies are compared by."""

from __future__ import annotations

from impq_opt.solvers import solver_class, solver_names

QUICK = tuple(name for name in solver_names() if not solver_class(name).slow)
