"""Help for people: options and what they mean, in the width there is, without boxes."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions
from rich.text import Text

from impq_opt.cli._screen import Screen, console, grid, wrapped

__all__ = ["Help", "help_console", "of_docstring", "paragraphs", "print_description"]

# Names stand beside their meaning where this many columns are left for it, and above it elsewhere.
_LONGEST_NAME, _LEAST_MEANING = 28, 36
_PAGE, _WIDEST = 80, 120
# What a value is, for people.
_VALUES = {"FLOAT": "NUMBER", "INT": "N", "STR": "TEXT", "PATH": "FILE"}


class Help:
    """What cyclopts knows of a command, as a list of names and meanings."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one list: the commands of a kind, or the options."""
        if not panel.entries:
            return
        width = min(console.width, _WIDEST)
        console.print()
        console.print(Text(f"{_plain(panel.title)}:", style="bold"))
        for entry in panel.entries:
            for line in _entry(entry, width):
                console.print(line)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print how the command is called."""
        console.print(Text(f"Usage: {_plain(usage)}"))

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what the command does."""
        for paragraph in paragraphs(_plain(description)):
            console.print()
            for line in wrapped(Text(paragraph), min(console.width, _WIDEST)):
                console.print(line)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring, each on one line, without the marks of code."""
    parts = re.split(r"\n\s*\n", text.strip())
    return [re.sub(r"`+", "", " ".join(part.split())) for part in parts if part.strip()]


def _plain(thing: Any) -> str:
    """Return a text as cyclopts has it, or what it wraps; formats are our own."""
    inside = getattr(thing, "primary_renderable", thing)
    return "" if inside is None else getattr(inside, "plain", str(inside)).strip()


def _entry(entry: HelpEntry, width: int) -> list[Text]:
    value = (entry.metavar or "").removesuffix("...")
    names = ", ".join(entry.copy(metavar=_VALUES.get(value, value) or None).display_labels_with_metavar)
    meaning = " ".join(paragraphs(_plain(entry.description)))
    if entry.default is not None and entry.default not in ("", "None", "[]", "False"):
        meaning += f" [default: {entry.default}]"
    if entry.required:
        meaning += " [required]"
    name = Text(f"  {names}", style="cyan")
    if width - _LONGEST_NAME - 2 < _LEAST_MEANING:
        return [name, *(_indented(line, 6) for line in wrapped(Text(meaning.strip()), width - 6))]
    lines = [_indented(line, _LONGEST_NAME) for line in wrapped(Text(meaning.strip()), width - _LONGEST_NAME)]
    if name.cell_len > _LONGEST_NAME - 2 or not lines:
        return [name, *lines]
    first = Text.assemble(name, " " * (_LONGEST_NAME - name.cell_len), lines[0][_LONGEST_NAME:])
    return [first, *lines[1:]]


def _indented(line: Text, by: int) -> Text:
    line.pad_left(by)
    return line


class _HelpScreen(Screen):
    """Prints what cyclopts hands over in formats of its own."""

    def _lines(self, thing: Any, indent: int) -> list[Text]:
        if isinstance(thing, str | Text):
            return super()._lines(thing, indent)
        return [line for part in _plain(thing).split("\n") for line in _epilogue(part, self.width)]


def _epilogue(part: str, width: int) -> list[Text]:
    """Return a line of what stands at the end; an example stays one that a shell takes."""
    if not part.startswith("Example: "):
        return wrapped(Text(part), width)
    lines = wrapped(Text(part), width - 2, 4)
    return [Text(f"{line.plain} \\") for line in lines[:-1]] + lines[-1:]


def help_console() -> Screen:
    """Return the console that help is printed on: as wide as a page where it is piped."""
    wide = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return _HelpScreen(highlight=False, markup=False, emoji=False, width=None if wide else _PAGE, soft_wrap=False)


def print_description(description: str, options: Mapping[str, str]) -> None:
    """Print the paragraphs of a docstring, and what it says of each option, by name to what sets it."""
    out = console()
    parts, meanings = of_docstring(description)
    for paragraph in parts:
        out.print()
        out.print(paragraph)
    if options:
        out.print()
        table = grid("", "", header=False)
        for name, shown in options.items():
            table.add_row(shown, meanings.get(name, ""))
        out.print(table)


def of_docstring(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs of a docstring, and what it says of each option."""
    parts = re.split(r"\n\n *(\w+)\n *-+\n", inspect.cleandoc(text))
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    options = re.split(r"^(\w+) : .*$", sections.get("Parameters", ""), flags=re.MULTILINE)
    plain = re.sub(r" \(:\w+:`[^`]*`\)", "", parts[0])  # references are for pages
    return paragraphs(plain), {
        name: " ".join(paragraphs(said)) for name, said in zip(options[1::2], options[2::2], strict=True)
    }
