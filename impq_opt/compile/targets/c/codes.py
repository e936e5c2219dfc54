"""Codes of weights as bytes: as many bits as they are allocated, cut so that a processor unpacks 32 at once.

A kernel's codes come in chunks: of 256 as long as there are so many, then one of the largest multiple of 8. A chunk is
eight runs one behind the other. Its bytes are planes, each of 8, 4, 2 or 1 bits of every code; a precision is a sum of
these, and the first plane has the lowest bits. In a plane of w bits, a byte holds the codes at one place of 8 / w runs.
The last codes, fewer than 8, follow bit by bit, the lowest first, up to the next byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["OVERRUN", "code_of", "packed_codes"]

OVERRUN = 31
"""Bytes behind the last code that unpacking may read: a run is read as if it had 32."""

_RUNS, _LONGEST = 8, 32


def packed_codes(codes: npt.NDArray[np.unsignedinteger], bits: int) -> npt.NDArray[np.uint8]:
    """Return codes (kernels, length) of 1 to 8 ``bits`` as bytes (kernels, ceil(length bits / 8))."""
    kernels, length = codes.shape
    made, start = [np.zeros((kernels, 0), dtype=np.uint8)], 0
    while length - start >= _RUNS:
        run = min((length - start) // _RUNS, _LONGEST)
        chunk = codes[:, start : start + _RUNS * run].astype(np.uint8).reshape(kernels, _RUNS, run)
        made += [_plane(np.right_shift(chunk, np.uint8(shift)), width) for width, shift in _planes(bits)]
        start += _RUNS * run
    rest = codes[:, start:].astype(np.uint8)
    each = np.unpackbits(rest[:, :, None], axis=2, count=bits, bitorder="little")
    made.append(np.packbits(each.reshape(kernels, -1), axis=1, bitorder="little"))
    return np.concatenate(made, axis=1)


def code_of(bits: int) -> tuple[str, str]:
    """Return, in C, declarations of the planes of run ``r`` and the code of its element ``i``."""
    declared, parts, before = [], [], 0
    for width, shift in _planes(bits):
        place = f"({before} + r % {width})" if before else f"r % {width}" if width > 1 else "0"
        declared.append(f"        const uint8_t *restrict plane{width} = codes + {place} * run;")
        part = f"plane{width}[i]"
        if width < _RUNS:
            declared.append(f"        const unsigned place{width} = {width} * (r / {width});")
            part = f"((plane{width}[i] >> place{width}) & {2**width - 1})"
        parts.append(f"({part} << {shift})" if shift else part)
        before += width
    return "\n".join(sorted(declared, key=lambda line: "unsigned" in line)), " | ".join(parts)


def _planes(bits: int) -> list[tuple[int, int]]:
    """Return the widths of planes, and where the bits of each begin."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    return list(zip(widths, np.cumsum([0, *widths]).tolist(), strict=False))


def _plane(chunk: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Return the lowest bits of a chunk (kernels, 8, run) as bytes (kernels, width run)."""
    kernels, _, run = chunk.shape
    each = (chunk & (2**width - 1)).reshape(kernels, _RUNS // width, width * run)
    shifts = (width * np.arange(_RUNS // width, dtype=np.uint8)).reshape(1, -1, 1)
    made: npt.NDArray[np.uint8] = np.bitwise_or.reduce(each << shifts, axis=1)
    return made
