"""The C file of one program, as far as it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from impq_opt.compile.program import Program
from impq_opt.compile.targets.c.places import Places, bytes_of
from impq_opt.types import IntArray

__all__ = ["Draft", "Kind"]


@dataclass(frozen=True)
class Kind:
    """Which loops a layer runs, and types: of what it reads, of windows and weights, of what it writes, and adds."""

    loops: str
    source: str
    inner: str
    target: str
    added: str = ""

    @property
    def function(self) -> str:
        """The function's name."""
        return "_".join(filter(None, (self.loops, self.source, self.inner, self.target, self.added)))


@dataclass
class Draft:
    """Constants and statements that are written so far, and what the rest of the file must know of them.

    Parameters
    ----------
    program : Program
    places : Places
    codes : list of (str, bytes)
        Of weights, each with what is said of them.
    constants, body : list of str
        Constants and statements.
    kinds : dict of Kind
        Of the layers, in the order of their first use.
    bits : set of int
        Of the parts.
    windows, weights, windows_used : dict of str to int
        By type of the loops, elements: of the largest window, of an unpacked kernel with what it overruns, and of as
        many windows as any layer has use for.
    parts : int
        The most parts of a layer with a kernel a channel.
    scales, tables : int
        Bytes of constants.
    """

    program: Program
    places: Places
    codes: list[tuple[str, bytes]] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    kinds: dict[Kind, None] = field(default_factory=dict)
    bits: set[int] = field(default_factory=set)
    windows: dict[str, int] = field(default_factory=dict)
    windows_used: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    parts: int = 1
    scales: int = 0
    tables: int = 0

    def pointer(self, name: str) -> str:
        """Return an expression for the first element of a tensor."""
        return self.places.pointers[name]

    def array(self, name: str, kind: str, values: Iterable[int], what: Literal["scales", "tables"]) -> str:
        """Write a constant array and count its bytes; return its name."""
        numbers = [int(value) for value in values]
        texts = (f"INT64_C({number})" if kind == "int64_t" else str(number) for number in numbers)
        self.constants.append("\n".join([f"static const {kind} {name}[{len(numbers)}] = {{", *lines(texts), "};"]))
        setattr(self, what, getattr(self, what) + len(numbers) * bytes_of(kind))
        return name

    def shared(self, name: str, kind: str, values: IntArray) -> str:
        """Return values (channels,) as an expression in ``c``: one number where they are alike."""
        if (values == values[0]).all():
            return f"INT64_C({int(values[0])})"
        return f"{self.array(name, kind, values.tolist(), 'scales')}[c]"


def lines(texts: Iterable[str]) -> list[str]:
    """Return the lines of an initializer."""
    made, line = [], "   "
    for text in texts:
        if len(line) + len(text) > 116:
            made.append(line)
            line = "   "
        line += f" {text},"
    return [*made, line]
