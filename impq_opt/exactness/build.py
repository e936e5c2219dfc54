"""Compiled parts: loaded where they were built from the sources that lie beside them, if any lie there.

A build keeps a digest of its C sources, which setup.py puts there. In a checkout the sources may have changed since;
beside an installed package there are none, and nothing is read.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["PURE", "load", "source_digest"]

PURE = bool(os.environ.get("IMPQ_OPT_PURE"))


def source_digest(source: Path) -> str | None:
    """Return a digest of a C file, the headers beside it and here, and the limits; None where the file is not there."""
    try:
        state = hashlib.sha256(source.read_bytes())
    except OSError:
        return None
    folders = {Path(__file__).absolute().parent, source.absolute().parent}
    others = [file for folder in folders for file in (*folder.glob("*.h"), *folder.glob("limits.py"))]
    for other in sorted(others, key=lambda path: path.name):
        state.update(other.read_bytes())
    return state.hexdigest()


def load(name: str) -> ModuleType | None:
    """Return the compiled module ``name``, or None where NumPy is to do its work: none was built, or an old one."""
    if PURE:
        return None
    try:
        module = import_module(name)
    except ImportError:
        return None
    wanted = source_digest(Path(module.__file__ or "").with_name(name.rpartition(".")[2] + ".c"))
    if wanted is None or wanted == getattr(module, "SOURCES", ""):
        return module
    # The same words for every part, so that they are shown once.
    warnings.warn(
        "compiled parts of impq-opt were built from other C sources than those beside them, so NumPy does their work, "
        "more slowly: run pip install -e . again",
        RuntimeWarning,
        stacklevel=1,
    )
    return None
