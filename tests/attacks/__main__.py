"""Attack from one seed on: ``python -m attacks KIND START COUNT`` prints faults, and a digest of the answers last."""

from __future__ import annotations

import hashlib
import sys

from attacks.core import load


def main(kind: str, start: int, count: int) -> int:
    """Return 1 where there is a fault."""
    state, faults = hashlib.sha256(), 0
    for seed in range(start, start + count):
        found = load(kind)(seed)
        for fault in found.faults:
            faults += 1
            print(f"{fault}\n")
        state.update(found.digest.encode())
    print(state.hexdigest())
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
