"""Files: a problem as TOML with an optional safetensors file beside it, an allocation as JSON.

Everything is written whole or not at all (:mod:`impq_opt.documents.writing`). Nothing is pickled. Every file carries a
format name and a version; what does not fit is told with its place.
"""

from __future__ import annotations

from impq_opt.documents.writing import atomic_write
from impq_opt.files.allocation import load_allocation, save_allocation
from impq_opt.files.problem import load_problem, save_problem
from impq_opt.files.revision import Revision

__all__ = ["Revision", "atomic_write", "load_allocation", "load_problem", "save_allocation", "save_problem"]
