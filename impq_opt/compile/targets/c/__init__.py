"""C99 without dependencies: one file, one header, weights packed in their bits, one static arena."""

from __future__ import annotations

from impq_opt.compile.targets.c.codes import packed_codes
from impq_opt.compile.targets.c.source import compile_c

__all__ = ["compile_c", "packed_codes"]
