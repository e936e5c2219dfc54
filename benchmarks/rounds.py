"""A comparison of rounds as figures: the table of the documentation, or a line for every round of every run.

    impq-opt rounds --recipe resnet8-fashion-mnist --compare iterative,exact --seeds 5 --threads 1 -o runs/resnet8
    python benchmarks/rounds.py runs/resnet8                    # Markdown
    python benchmarks/rounds.py runs/resnet8 --json > results/rounds-resnet8-fashion-mnist.json

Read are the finished runs, so a comparison that was stopped can be looked at. Means and standard errors are over seeds;
differences are paired by seed, against the last round of the paper's heuristic.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from impq_opt.rounds import Record, read_records
from impq_opt.rounds.comparison import Estimate, against_end, reached, trails

Records = list[Record]
REFERENCE = "iterative"


def finished(folder: Path) -> dict[str, dict[int, Records]]:
    """Return the runs whose test data have been read, by strategy and seed."""
    found: dict[str, dict[int, Records]] = {}
    for path in sorted(folder.glob("seed-*/*/log.jsonl")):
        records = read_records(path)
        if records and records[-1].accuracy.test is not None:
            found.setdefault(path.parent.name, {})[records[0].seed] = records
    return found


def paired(found: dict[str, dict[int, Records]], name: str) -> dict[str, list[Records]]:
    """Return the runs of a strategy and of the reference with the same seeds."""
    seeds = sorted(found[name].keys() & found[REFERENCE].keys())
    return {one: [found[one][seed] for seed in seeds] for one in dict.fromkeys((REFERENCE, name))}


def table(found: dict[str, dict[int, Records]]) -> str:
    """Return the strategies' rounds, in the Markdown of docs/howto/rounds.md."""
    head = "strategy, seeds, round, epochs, bits, validation [%], test [%], bits against the end, validation, test"
    lines = [f"| {head.replace(', ', ' | ')} |", "|" + 10 * "---|"]
    for name, runs in found.items():
        differences = {row.round: row for row in against_end(paired(found, name), REFERENCE)[name]}
        for row in trails({name: list(runs.values())}):
            other = differences.get(row.round)
            against = (None, None, None) if other is None else (other.bits, other.validation, other.test)
            cells = [
                name, len(runs), row.round, row.epochs, number(row.bits, 3), number(row.validation, 2, 100),
                number(row.test, 2, 100), number(against[0], 3, sign="+"), number(against[1], 2, 100, "+"),
                number(against[2], 2, 100, "+"),
            ]  # fmt: skip
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def number(estimate: Estimate | None, digits: int, factor: float = 1, sign: str = "") -> str:
    """Return a mean and its standard error."""
    if estimate is None:
        return ""
    error = 0.0 if math.isnan(estimate.stderr) else factor * estimate.stderr
    return f"{factor * estimate.mean:{sign}.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")


def compact(found: dict[str, dict[int, Records]]) -> str:
    """Return the figures as JSON, one line for each row."""
    columns = ["strategy", "seed", "round", "epochs", "bits", "storage", "damage", "train", "validation", "test"]
    runs = [
        [
            name, seed, one.round, one.total_epochs, one.effective_bits.weights, one.cost,
            one.damage, *(getattr(one.accuracy, split) for split in ("train", "validation", "test")),
        ]
        for name, some in found.items() for seed, run in some.items() for one in run
    ]  # fmt: skip
    pairs = {name: paired(found, name) for name in found}
    ends = [
        {"strategy": n} | dataclasses.asdict(row)
        for n, some in pairs.items()
        for row in against_end(some, REFERENCE)[n]
    ]
    goals = [{"strategy": n} | dataclasses.asdict(reached(some, REFERENCE)[n]) for n, some in pairs.items()]
    versions = next(iter(found[REFERENCE].values()))[-1].versions
    parts = {
        "versions": json.dumps(versions),
        "columns": json.dumps(columns),
        "runs": lines(runs),
        f"against_the_end_of_{REFERENCE}": lines(ends),
        f"as_accurate_as_{REFERENCE}_ends": lines(goals),
    }
    return "{\n" + ",\n".join(f' "{name}": {text}' for name, text in parts.items()) + "\n}"


def lines(rows: list[Any]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(rounded(row)) for row in rows) + "\n ]"


def rounded(value: Any) -> Any:
    """Return the value with floats to six significant digits."""
    if isinstance(value, Estimate):
        value = dataclasses.asdict(value)
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of `impq-opt rounds --compare`")
    parser.add_argument("--json", action="store_true", help="every round of every run")
    options = parser.parse_args()
    found = finished(options.folder)
    if REFERENCE not in found:
        raise SystemExit(f"no finished run of {REFERENCE} in {options.folder}")
    print(compact(found) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
