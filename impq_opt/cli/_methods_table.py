"""What ``impq-opt train`` and ``impq-opt baselines`` print for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impq_opt.cli._screen import console, cost_text, counted, grid
from impq_opt.costs import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from impq_opt.baselines import Row
    from impq_opt.rounds.comparison import Estimate

__all__ = ["print_methods"]


def print_methods(title: str, rows: Sequence[Row]) -> None:
    """Print a row for every method, with the published one beside it where there is one."""
    out = console()
    beside = any(row.published is not None for row in rows)
    head = ["method", ">B_w,eff", ">B_a,eff", ">storage", ">C_C", ">validation %", ">test %", ">change"]
    published = [">published B_w", ">top-1", ">change there"] if beside else []
    table = grid(*head, *published, title=title)
    for row in rows:
        cells = [
            row.name,
            _text(row.weight_bits),
            "-" if row.activation_bits is None else _text(row.activation_bits),
            cost_text(row.storage.mean, "bit"),
            _cost(row, "slides"),
            _text(row.validation, 100.0),
            _text(row.test, 100.0),
            "-" if row.change is None else f"{100 * row.change:+.2f}",
        ]
        table.add_row(*cells, *(_published(row) if beside else ()))
    out.print(table)
    seeds, epochs = {row.seeds for row in rows}, {row.epochs for row in rows}
    error = "over seeds" if min(seeds) > 1 else "of so many samples, of one seed"
    out.print(
        f"{counted(max(epochs), 'epoch')} each; +- is the standard error {error}; B_w,eff with scales, "
        "codebooks and what stays in float; C_C by the slides' convention, codes of three levels as 2 bits"
    )
    known = [row.float_test for row in rows if row.float_test is not None]
    if known:
        out.print(f"change is from the float network that all start from: {100 * known[0]:.2f} % on the test data")


def _published(row: Row) -> tuple[str, str, str]:
    line = row.published
    if line is None:
        return "", "", ""
    change = "" if line.float_accuracy is None else f"{line.accuracy - line.float_accuracy:+.2f}"
    return line.weight_bits, f"{line.accuracy:g}", change


def _text(estimate: Estimate, factor: float = 1.0) -> str:
    error = f" +- {factor * estimate.stderr:.2f}" if estimate.stderr > 0 else ""
    return f"{factor * estimate.mean:.2f}{error}"


def _cost(row: Row, name: str) -> str:
    return format_quantity(row.costs[name].value, row.costs[name].unit) if name in row.costs else "-"
