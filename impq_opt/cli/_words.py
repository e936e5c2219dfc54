"""Errors of the library and of the parser, in the words of the command line: by the options that were given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cyclopts import App
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)  # fmt: skip

from impq_opt.cli._common import type_text
from impq_opt.errors import ImpqError, InputError, nearest

__all__ = ["in_shell_words", "of_parsing"]

_ALIASES = {"--bits": ("--average-bits",), "budget": ("--exact", "--bits"), "format": ("--to", "--from", "--for")} | {
    f"--set.{goal}": ("--bits-schedule", "--bound-schedule") for goal in ("budget", "bound")
}
_KEYWORD = re.compile(r"(?<![-\w.\[])([a-z_]+)=(?=[^\s=)])(?:True\b)?")


def in_shell_words(error: ImpqError, app: App, arguments: Sequence[str]) -> str:
    """Return an error's sentence with options as a shell has them: ``--bound 0.01``, not ``bound=0.01``."""
    options = _options(app, arguments)
    if not options:
        return str(error)
    if not isinstance(error, InputError):
        return _spelled(str(error), options)
    where = _place(error.where, options, arguments)
    again = type(error)(
        _spelled(error.what, options), where=where, value=error.value, hint=_spelled(error.hint, options)
    )
    return str(again)


def _options(app: App, arguments: Sequence[str]) -> dict[str, str]:
    """Return the options of the command that was called, by the names that the library has for them."""
    if not arguments or arguments[0].startswith("-"):
        return {}
    try:
        collection = app[arguments[0]].assemble_argument_collection()
    except KeyError:
        return {}
    names = {name for argument in collection for name in argument.names if name.startswith("--")}
    options = {name[2:].replace("-", "_"): name for name in names}
    return {f"{name}s": option for name, option in options.items()} | options


def _place(where: str, options: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return a place as an option, where that is one that was given."""
    given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    head, colon, more = where.partition(":")
    root, dot, rest = head.partition(".")
    last = head.rpartition(".")[2]
    option = options.get(root.replace("-", "_"), "")
    if option not in given and options.get(last.replace("-", "_")) in given:
        option, dot, rest = options[last.replace("-", "_")], "", ""  # range.over
    # What the library calls otherwise.
    others = _ALIASES.get(head, ())
    if option not in given and any(other in given for other in others):
        return f"{next(other for other in others if other in given)}{colon}{more}"
    if option in given:
        return f"{option}{dot and ' '}{rest}{colon}{more}"
    if "--option" in given and any(word.startswith(f"{rest}=") for word in arguments):
        return f"--option {rest}{colon}{more}"  # exact.states
    return where


def _spelled(text: str, options: Mapping[str, str]) -> str:
    def option(match: re.Match[str]) -> str:
        if match[1] not in options:
            return match[0]
        return options[match[1]] + " " * (not match[0].endswith("True"))

    return _KEYWORD.sub(option, text)


def of_parsing(error: CycloptsError, arguments: Sequence[str], commands: Sequence[str]) -> str:
    """Return what is wrong with a command line in a sentence."""
    command = arguments[0] if arguments else ""
    if isinstance(error, UnknownCommandError):
        name = error.unused_tokens[0] if error.unused_tokens else " ".join(arguments[:1])
        return f"there is no command {name!r} ({nearest(name, commands)})"
    if isinstance(error, UnusedCliTokensError):
        more = " ".join(error.unused_tokens or [])
        return f"the command takes no further argument, got {more!r} (impq-opt {command} --help)"
    if isinstance(error, CoercionError) and error.token is not None:
        place = error.token.keyword or _name(error)
        kind = error.target_type if error.target_type is not None else getattr(error.argument, "hint", str)
        return f"{place}: must be {type_text(kind)}, got {error.token.value!r}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        if error.keyword:
            return f"{error.keyword}: needs a value (impq-opt {command} --help)"
        near = nearest(_name(error), [word for word in error.unused_tokens or [] if word.startswith("--")])
        meant = f", not {near.split(chr(39))[1]}" if near.startswith("did you mean") else ""
        return f"{_name(error)} is needed{meant} (impq-opt {command} --help)"
    return " ".join(str(error).split())


def _name(error: CycloptsError) -> str:
    name = "" if error.argument is None else error.argument.name
    return name if name.startswith("-") else name.upper()
