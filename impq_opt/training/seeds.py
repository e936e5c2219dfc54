"""Seeds as functions of what they are for, and the processes that share the work."""

from __future__ import annotations

from torch import distributed

__all__ = ["mix", "processes"]


def mix(*parts: int) -> int:
    """Return one 63-bit seed for a tuple of numbers (SplitMix64: Steele, Lea and Flood 2014)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def processes() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
