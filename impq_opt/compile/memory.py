"""Where tensors lie in a static arena: no two that are alive together overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from impq_opt.compile.program import Program

__all__ = ["Piece", "peak_bits", "plan"]


@dataclass(frozen=True)
class Piece:
    """Elements that are held from the operation that writes them to the last that reads them, both included."""

    name: str
    size: int
    first: int
    last: int


def plan(pieces: Iterable[Piece]) -> tuple[Mapping[str, int], int]:
    """Return where each piece begins, and the size of the arena.

    The largest piece is placed first, each at the lowest place that is free while it is alive: greedy by size
    (Pisarchyk and Lee 2020, arXiv:2001.03288).
    """
    placed: dict[str, tuple[Piece, int]] = {}
    for piece in sorted(pieces, key=lambda p: (-p.size, p.first, p.name)):
        beside = sorted(
            (start, start + other.size)
            for other, start in placed.values()
            if other.first <= piece.last and piece.first <= other.last
        )
        start = 0
        for low, high in beside:
            if start + piece.size <= low:
                break
            start = max(start, high)
        placed[piece.name] = piece, start
    return {name: start for name, (_, start) in placed.items()}, max(
        (start + piece.size for piece, start in placed.values()), default=0
    )


def peak_bits(program: Program) -> int:
    """Return the most bits that tensors alive together take, each at its own; input and logits are not held."""
    uses = [use for use in program.uses() if use[0] not in (program.input, program.output)]
    return max(
        (
            sum(
                program.tensors[name].elements * program.tensors[name].bits
                for name, first, last in uses
                if first <= step <= last
            )
            for step in range(len(program.operations))
        ),
        default=0,
    )
