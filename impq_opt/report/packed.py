"""The size on disk of a packed network, once it is known to hold the allocation that is reported. Without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from impq_opt.errors import FileError
from impq_opt.groups.candidates import FLOAT_BITS
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.coded import code_bits

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
            entries = about.get("weights", ())
            if "methods" in about:
                ends = np.cumsum([entry["groups"] for entry in entries])
                parts = np.split(file.get_tensor("bits"), ends[:-1])
            else:  # of versions 1 and 2
                parts = [file.get_tensor(f"{entry['name']}#bits") for entry in entries]
            held = {entry["name"].removesuffix(".weight"): bits for entry, bits in zip(entries, parts, strict=True)}
    except FileNotFoundError:
        raise FileError("no such file", where=str(path)) from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise FileError("is not a packed network", where=str(path), hint="impq-opt pack writes them") from None
    groups, weights = allocation.problem.names, allocation.problem.weights()
    bits = code_bits(allocation.problem, allocation._need())
    for place, label in enumerate(groups.labels):
        start, end = int(groups.offsets[place]), int(groups.offsets[place + 1])
        own = held.get(label.removesuffix(".weight"), np.full(end - start, FLOAT_BITS))
        if weights[start] and not np.array_equal(own, bits[start:end]):
            raise FileError(
                "holds another allocation", where=str(path), value=label, hint="name the file packed from this one"
            )
    return path.stat().st_size
