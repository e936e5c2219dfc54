"""Names and what stands behind them: strategies, formats and metrics, each class loaded when it is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from impq_opt.errors import OptionError, nearest

__all__ = ["NO_OPTION", "Registry", "look_up", "option_fields"]

T = TypeVar("T")

# Metadata of a dataclass field that is no option: it has no name and no text that people write.
NO_OPTION: Mapping[str, bool] = {"option": False}


def option_fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass that are its options."""
    return tuple(field for field in dataclasses.fields(kind) if field.metadata.get("option", True))


def look_up(table: Mapping[str, T], name: str, noun: str, where: str = "") -> T:
    """Return the ``noun`` called ``name``; raise OptionError with near matches, at ``where`` (else the noun)."""
    if name not in table:
        raise OptionError(f"unknown {noun}", where=where or noun, value=name, hint=nearest(name, table))
    return table[name]


class Registry(Generic[T]):
    """Classes by name: those of a literal table, then those of an entry-point group, which cannot take their names.

    Parameters
    ----------
    noun : str
        What the classes are, for errors.
    table : mapping
        Name to ``"module:class"``.
    group : str
        Where other packages name theirs in the same way.
    """

    def __init__(self, noun: str, table: Mapping[str, str], group: str) -> None:
        self.noun, self.table, self.group = noun, table, group

    def _all(self) -> dict[str, str]:
        from importlib.metadata import entry_points  # slow to load, and seldom needed

        table = dict(self.table)
        for entry in entry_points(group=self.group):
            table.setdefault(entry.name, entry.value)
        return table

    def names(self) -> tuple[str, ...]:
        """Return all names, those of the table first."""
        return tuple(self._all())

    def find(self, name: str) -> type[T]:
        """Return the class called ``name``; raise OptionError with near matches."""
        table = self.table if name in self.table else self._all()
        module, _, attribute = look_up(table, name, self.noun).partition(":")
        kind: type[T] = getattr(import_module(module), attribute)
        return kind

    def make(self, name: str, **options: Any) -> T:
        """Return what is called ``name`` with ``options``, fields of its dataclass.

        Raises
        ------
        OptionError
            Where an option is unknown, or a value is none for it.
        """
        kind = self.find(name)
        for option in options:
            known = {field.name for field in option_fields(kind)}
            if option not in known:
                raise OptionError(
                    f"unknown option of {self.noun} {name!r}",
                    value=option,
                    hint=nearest(option, known) or "it has none",
                )
        return kind(**options)
