"""The policies, one a file. Each is loaded when it is asked for.

A new one is a file with a :class:`~impq_opt.rounds.policy.Policy` and a line in ``TABLE``, or an entry point in the
group ``impq_opt.policies`` of another package.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from impq_opt.documents.wording import in_words
from impq_opt.errors import OptionError, nearest
from impq_opt.registry import Registry
from impq_opt.rounds.policy import Policy
from impq_opt.rounds.schedule import Schedule, parse_schedule
from impq_opt.solvers import solver_names

__all__ = ["TABLE", "make_policy", "policy_class", "policy_fields", "policy_names", "strategy_class"]

TABLE: dict[str, str] = {
    "slides": "impq_opt.rounds.policies.slides:Slides",
    "authors-code": "impq_opt.rounds.policies.authors_code:AuthorsCode",
    "by-solver": "impq_opt.rounds.policies.by_solver:BySolver",
    "haq": "impq_opt.rounds.policies.haq:Haq",
}

_POLICIES: Registry[Policy] = Registry("policy", TABLE, "impq_opt.policies")

policy_names = _POLICIES.names
policy_class = _POLICIES.find

# What a strategy of rounds may be called besides a policy's own name. The solver ``iterative`` keeps sensitivities as
# they were measured; as a strategy of rounds it is ``by-solver`` with ``solver = "iterative"``.
_OTHER_NAMES = {"iterative": "slides"}


def strategy_class(strategy: str) -> tuple[type[Policy], dict[str, Any]]:
    """Return the policy that a strategy of rounds is, and the options that follow from its name.

    Raises
    ------
    OptionError
        Neither a policy nor a solver has this name.
    """
    name = _OTHER_NAMES.get(strategy, strategy)
    if name in TABLE or name in policy_names():
        return policy_class(name), {}
    if strategy not in solver_names():
        known = (*policy_names(), *_OTHER_NAMES, *solver_names())
        hint = nearest(strategy, known)
        raise OptionError(f"unknown strategy; {hint}", where="rounds.strategy", value=strategy)
    return policy_class("by-solver"), {"solver": strategy}


def policy_fields(kind: type[Policy]) -> frozenset[str]:
    """Return the names of a policy's options."""
    return frozenset(field.name for field in dataclasses.fields(kind))


def make_policy(strategy: str, options: Mapping[str, Any], where: str = "rounds") -> Policy:
    """Return the policy of a strategy with ``options``, plain values; schedules may be texts.

    Raises
    ------
    OptionError
        An unknown strategy or option, or a value that is not allowed.
    """
    kind, implied = strategy_class(strategy)
    for name, value in implied.items():
        if options.get(name, value) != value:
            raise OptionError(f"is {strategy!r}, and names another {name}", where=where, value=options[name])
    values, known = implied | dict(options), policy_fields(kind)
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in known:
            raise OptionError(f"unknown option of {strategy!r}", where=where, value=name, hint=nearest(name, known))
        if isinstance(value, str) and Schedule in (hints[name], *typing.get_args(hints[name])):
            values[name] = dataclasses.asdict(parse_schedule(value, f"{where}.{name}"))
    return built(kind, values, where)


T = typing.TypeVar("T")


def built(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return a dataclass from plain values; what it says itself of a wrong one is raised as it is."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, OptionError):
            raise error.__cause__ from None
        what, place = in_words(error)
        value = values.get(place, ...)
        raise OptionError(what, where=f"{where} {place}" if place else where, value=value) from None
