"""A comparison of rounds as figures: the table of the documentation, or a line for every round of every run.

    impq-opt rounds --recipe resnet8-fashion-mnist --compare iterative,exact --seeds 5 --threads 1 -o runs/resnet8
    python benchmarks/rounds.py runs/resnet8                    # Markdown
    python benchmarks/rounds.py runs/resnet8 --json > results/rounds-resnet8-fashion-mnist.json

Means and standard errors over seeds; differences are paired by seed, against the last round of the paper's heuristic.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def table(document: Row) -> str:
    """Return the strategies' rounds, in the Markdown of docs/howto/rounds.md."""
    lines = [
        "| strategy | round | epochs | bits | validation [%] | test [%] | against the end: bits | validation | test |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["trails"]:
        others = document["against_end"][row["strategy"]]
        paired = next((one for one in others if one["round"] == row["round"]), {})
        cells = [
            row["strategy"], row["round"], row["epochs"], number(row["bits"], 3), number(row["validation"], 2, 100),
            number(row["test"], 2, 100), number(paired.get("bits"), 3, sign="+"),
            number(paired.get("validation"), 2, 100, "+"), number(paired.get("test"), 2, 100, "+"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def number(estimate: Row | None, digits: int, factor: float = 1, sign: str = "") -> str:
    """Return a mean and its standard error."""
    if estimate is None:
        return ""
    error = estimate["stderr"]
    shown = "" if not error else f" ± {factor * error:.{digits}f}"
    return f"{factor * estimate['mean']:{sign}.{digits}f}{shown}"


def compact(document: Row) -> str:
    """Return the figures as JSON, one line for each row."""
    columns = ["strategy", "seed", "round", "epochs", "bits", "storage", "damage", "train", "validation", "test"]
    runs = [
        [
            name, one["seed"], one["round"], one["total_epochs"], one["effective_bits"]["weights"], one["cost"],
            one["damage"], *(one["accuracy"][split] for split in ("train", "validation", "test")),
        ]
        for name, some in document["runs"].items() for run in some for one in run
    ]  # fmt: skip
    paired = [
        {"strategy": name} | row
        for name, rows in document["against_end"].items() if name != "reference" for row in rows
    ]  # fmt: skip
    versions = next(iter(document["runs"].values()))[0][-1]["versions"]
    parts = {
        "title": json.dumps(document["title"]),
        "versions": json.dumps(versions),
        "reached": json.dumps(document["reached"]),
        "columns": json.dumps(columns),
        "runs": lines(map(rounded, runs)),
        f"against_end_of_{document['against_end']['reference'].replace('-', '_')}": lines(map(rounded, paired)),
    }
    return "{\n" + ",\n".join(f' "{name}": {text}' for name, text in parts.items()) + "\n}"


def lines(rows: Any) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"


def rounded(value: Any) -> Any:
    """Return the value with floats to six significant digits."""
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
    document = json.loads((options.folder / "comparison.json").read_text())
    print(compact(document) if options.json else table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
