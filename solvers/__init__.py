"""The strategies, one a file. Each is loaded when it is asked for."""

from __future__ import annotations

from impq_opt.instance.contract import Solver
from impq_opt.registry import Registry

__all__ = ["TABLE", "is_own", "make_solver", "solver_class", "solver_names"]

TABLE: dict[str, str] = {
    "exact": "impq_opt.solvers.exact.strategy:Exact",
    "lagrangian": "impq_opt.solvers.lagrangian:Lagrangian",
    "greedy": "impq_opt.solvers.greedy:Greedy",
    "iterative": "impq_opt.solvers.iterative:Iterative",
    "noise-equalization": "impq_opt.solvers.noise_equalization:NoiseEqualization",
    "uniform": "impq_opt.solvers.uniform:Uniform",
    "milp": "impq_opt.solvers.milp:Milp",
    "ilp": "impq_opt.solvers.ilp:Ilp",
    "exhaustive": "impq_opt.solvers.exhaustive:Exhaustive",
    "haq": "impq_opt.solvers.haq:Haq",
}

_STRATEGIES: Registry[Solver] = Registry("solver", TABLE, "impq_opt.solvers")

solver_names = _STRATEGIES.names
solver_class = _STRATEGIES.find
make_solver = _STRATEGIES.make


def is_own(strategy: Solver) -> bool:
    """Return whether ``strategy`` is one of the table itself, whose enumerations are believed."""
    kind = type(strategy)
    return strategy.name in TABLE and kind is solver_class(strategy.name)
