"""The size on disk of a packed network, once it is known to hold the allocation that is reported. Without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from impq_opt.errors import FileError
from impq_opt.problem.allocation import Allocation

__all__ = ["packed_bytes"]


def packed_bytes(path: Path, allocation: Allocation) -> int:
    """Return how many bytes the file has that ``impq-opt pack`` wrote of ``allocation``.

    Raises
    ------
    FileError
        The file cannot be read, is no packed network, or has other weights or other bits.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("impq-opt", "{}"))
            names = [entry["name"] for entry in about.get("weights", ())]
            held = {name.removesuffix(".weight"): file.get_tensor(f"{name}#bits") for name in names}
    except FileNotFoundError:
        raise FileError("no such file", where=str(path)) from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise FileError("is not a packed network", where=str(path), hint="impq-opt pack writes them") from None
    groups, weights, bits = allocation.problem.names, allocation.problem.weights(), np.asarray(allocation.bits)
    for place, label in enumerate(groups.labels):
        start, end = int(groups.offsets[place]), int(groups.offsets[place + 1])
        if weights[start] and not np.array_equal(held.get(label.removesuffix(".weight"), ()), bits[start:end]):
            raise FileError(
                "holds another allocation", where=str(path), value=label, hint="name the file packed from this one"
            )
    return path.stat().st_size
