"""Types of tensors in C, and where each is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from impq_opt.compile.memory import Piece, plan
from impq_opt.compile.program import Flatten, IntTensor, Layer, Operation, Program
from impq_opt.errors import DataError

__all__ = ["Places", "bytes_of", "places_of", "type_of"]


def type_of(tensor: IntTensor) -> str:
    """Return the type of a tensor's elements.

    Raises
    ------
    DataError
        It has more than 32 bits.
    """
    for bits in (8, 16, 32):
        if tensor.bits <= bits:
            return f"{'' if tensor.signed else 'u'}int{bits}_t"
    raise DataError("has more than 32 bits", where=tensor.name, value=tensor.bits)


def bytes_of(kind: str) -> int:
    """Return the bytes of a type."""
    return int(re.sub(r"\D", "", kind)) // 8


@dataclass(frozen=True)
class Places:
    """Where tensors are.

    Parameters
    ----------
    pointers : mapping of str to str
        Of each tensor, an expression for its first element.
    members : tuple of str
        Declarations of the arena's members.
    bytes : int
        Of the arena.
    aliases : mapping of str to str
        Flattened tensors that need no copy, with what they are.
    """

    pointers: Mapping[str, str]
    members: tuple[str, ...]
    bytes: int
    aliases: Mapping[str, str]


def places_of(program: Program) -> Places:
    """Return where the tensors of a program are.

    Bytes share memory with the wider type that takes more, which C's rules of aliasing allow, as bytes are characters.
    The other wider type has memory of its own.
    """
    aliases = _aliases(program)
    spans: dict[str, tuple[int, int]] = {}
    for name, first, last in program.uses():
        own = aliases.get(name, name)
        before = spans.get(own, (first, last))
        spans[own] = min(first, before[0]), max(last, before[1])
    held = {name: span for name, span in spans.items() if name not in (program.input, program.output)}
    sizes = {name: bytes_of(type_of(program.tensors[name])) for name in held}
    pointers, members, total = {program.input: "in", program.output: "out"}, list[str](), 0
    for kinds in _shared({name: size * program.tensors[name].elements for name, size in sizes.items()}, sizes):
        own_pieces = {name for name in held if sizes[name] in kinds}
        step = max(kinds)
        pieces = [
            Piece(name, -(-program.tensors[name].elements * sizes[name] // step), *held[name]) for name in own_pieces
        ]
        starts, most = plan(pieces)
        total += most * step
        region = f"values{step}"
        types = {1: "uint8_t", 2: "int16_t", 4: "int32_t"}
        each = [f"{types[size]} as_{types[size]}[{most * step // size}];" for size in kinds]
        members.append(f"union {{ {' '.join(each)} }} {region};")
        for name, start in starts.items():
            stored, own = types[sizes[name]], type_of(program.tensors[name])
            place = f"(arena.{region}.as_{stored} + {start * step // sizes[name]})"
            pointers[name] = f"{'' if own == stored else f'({own} *)'}{place}"
    pointers |= {name: pointers[own] for name, own in aliases.items()}
    return Places(pointers, tuple(members), total, aliases)


def _shared(taken: Mapping[str, int], sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Return the sizes of elements that share memory, those of each region."""
    by_size = {size: sum(taken[name] for name in taken if sizes[name] == size) for size in set(sizes.values())}
    wide = sorted((size for size in by_size if size > 1), key=lambda size: -by_size[size])
    return [group for group in ((*(size for size in (1, *wide[:1]) if size in by_size),), tuple(wide[1:])) if group]


def _aliases(program: Program) -> dict[str, str]:
    """Return the flattened tensors that layers alone read, which need no copy, with what they are."""
    readers: dict[str, list[Operation]] = {}
    for operation in program.operations:
        for source in operation.sources:
            readers.setdefault(source, []).append(operation)
    aliases: dict[str, str] = {}
    for operation in program.operations:
        if isinstance(operation, Flatten) and operation.target != program.output:
            single = program.tensors[operation.source].shape[1:] == (1, 1)
            if single or all(isinstance(reader, Layer) for reader in readers.get(operation.target, ())):
                aliases[operation.target] = aliases.get(operation.source, operation.source)
    return aliases
