"""HAQ's agent (Wang, Liu, Lin, Lin and Han, CVPR 2019): a search for precisions by reinforcement learning.

What needs torch is loaded when it is asked for: the walk and the units do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from impq_opt.agent.units import Units
from impq_opt.agent.walk import Limit, Walk, walk
from impq_opt.errors import MissingPackageError

if TYPE_CHECKING:
    from impq_opt.agent.ddpg import Settings
    from impq_opt.agent.episodes import Found, explore, reward, search

__all__ = ["Found", "Limit", "Settings", "Units", "Walk", "explore", "reward", "search", "walk"]

_LATER = {"Settings": "ddpg"} | dict.fromkeys(("Found", "explore", "reward", "search"), "episodes")


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"impq_opt.agent.{_LATER[name]}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MissingPackageError("torch", "HAQ's agent", "'impq-opt[torch]'") from None
    return getattr(module, name)
