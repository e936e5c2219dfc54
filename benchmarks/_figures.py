"""Figures of a benchmark: a table for people, one JSON object for programs, exit status 1 where a target is missed."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """Collects figures; prints each as it comes."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, value: float, target: float | None, unit: str, *, least: bool = False) -> None:
        """Add a figure that holds where it is at most ``target``, or at least ``target``."""
        holds = target is None or (value >= target if least else value <= target)
        self.found[name] = {"value": value, "target": target, "unit": unit, "holds": holds}
        relation = "" if target is None else f"{'at least' if least else 'at most'} {target:g}"
        print(f"  {name:58} {value:12.4g} {unit:22} {relation:18} {'' if holds else 'MISSED'}", flush=True)

    def finish(self, as_json: bool) -> int:
        """Print the JSON object where asked, and return the exit status."""
        if as_json:
            print(json.dumps(self.found))
        missed = [name for name, one in self.found.items() if not one["holds"]]
        if missed:
            print(f"missed: {', '.join(missed)}", file=sys.stderr)
        return 1 if missed else 0


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of ``work``, after one warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
