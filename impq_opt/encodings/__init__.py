"""How engines store weights: true bits, rows that they can hold, and the very rounding. One small file a family.

A new family is a file with a frozen dataclass that derives from :class:`Family`, and a line in :data:`TABLE`, or an
entry point in the group ``impq_opt.encodings`` of another package. :func:`impq_opt.testing.check_encodings` says
whether it keeps the rules.
"""

from __future__ import annotations

from functools import cache

from impq_opt.encodings.base import Encoding, Family
from impq_opt.registry import Registry, look_up

__all__ = ["TABLE", "Encoding", "Family", "encoding", "encoding_names", "family_class", "family_names"]

TABLE: dict[str, str] = {
    "gguf": "impq_opt.encodings.gguf:GgufTypes",
    "integers": "impq_opt.encodings.integers:GroupedIntegers",
    "microscaling": "impq_opt.encodings.microscaling:Microscaling",
    "torchao": "impq_opt.encodings.torchao:TorchAoIntegers",
}

_registry = Registry[Family]("family of encodings", TABLE, "impq_opt.encodings")
family_names, family_class = _registry.names, _registry.find


@cache
def _all() -> dict[str, Encoding]:
    found: dict[str, Encoding] = {}
    for family in family_names():
        for one in _registry.make(family).encodings():
            found.setdefault(one.name, one)  # whoever came first has the name, as in every table
    return found


def encoding_names(family: str | None = None) -> tuple[str, ...]:
    """Return the names of all encodings, or of those of one family."""
    return tuple(_all() if family is None else (one.name for one in _registry.make(family).encodings()))


def encoding(name: str) -> Encoding:
    """Return the encoding called ``name``, in any capitals.

    Raises
    ------
    OptionError
        Where there is none, with near matches.
    """
    return look_up(_all(), name.casefold(), "encoding")
