"""Names and what stands behind them: strategies, formats and metrics, optional packages, each loaded when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from impq_opt.errors import MissingPackageError, OptionError, first_line, nearest

__all__ = ["NO_OPTION", "Registry", "look_up", "need", "option_fields", "spec_of"]

T = TypeVar("T")

# Metadata of a dataclass field that is no option: it has no name and no text that people write.
NO_OPTION: Mapping[str, bool] = {"option": False}


def option_fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass that are its options."""
    every = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return tuple(field for field in every if field.metadata.get("option", True))


def look_up(table: Mapping[str, T], name: str, noun: str, where: str = "") -> T:
    """Return the ``noun`` called ``name``; raise OptionError with near matches, at ``where`` (else the noun)."""
    if name not in table:
        raise OptionError(f"unknown {noun}", where=where or noun, value=name, hint=nearest(name, table))
    return table[name]


def need(module: str, purpose: str, install: str) -> Any:
    """Return an optional package's module; raise MissingPackageError with the install line where it is absent."""
    try:
        return import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and module.partition(".")[0] == error.name
        broken = "" if absent else f" (what is installed cannot be used: {first_line(error)})"
        raise MissingPackageError(install, f"{purpose}{broken}", install) from error


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

    def read(self, spec: str, **more: Any) -> T:
        """Return what a text names, options of its dataclass behind a colon: ``"zero"``, ``"zero:over=tensor"``.

        Options may be given besides, as in :meth:`make`.

        Raises
        ------
        OptionError
            Where a name or an option is unknown, or a value is of another type than the usual one.
        """
        name, colon, rest = spec.partition(":")
        options: dict[str, Any] = {}
        for part in rest.split(",") if colon else ():
            option, equals, text = part.partition("=")
            if not equals:
                raise OptionError("options are written name=value", where=f"{self.noun} {name!r}", value=part)
            options[option.strip()] = text.strip()
        for field in option_fields(self.find(name)):
            if field.name in options:
                where = f"{self.noun} {name!r}: {field.name}"
                options[field.name] = _value(options[field.name], field.default, where)
        return self.make(name, **options | more)


def spec_of(item: Any) -> str:
    """Return what :meth:`Registry.read` makes ``item`` of: its name, and options that are not the usual ones."""
    given = [
        f"{option.name}={getattr(item, option.name)}"
        for option in option_fields(type(item))
        if getattr(item, option.name) != option.default
    ]
    return ":".join([item.name, ",".join(given)] if given else [item.name])


def _value(text: str, usual: Any, where: str) -> Any:
    """Return an option's text as a value of the type of its usual value."""
    if isinstance(usual, bool):
        if text not in ("True", "False"):
            raise OptionError("must be True or False", where=where, value=text, hint=nearest(text, ("True", "False")))
        return text == "True"
    try:
        return type(usual)(text)
    except ValueError:
        raise OptionError(f"must be of type {type(usual).__name__}", where=where, value=text) from None
