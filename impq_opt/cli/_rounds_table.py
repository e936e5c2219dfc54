"""What ``impq-opt rounds`` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from impq_opt.cli._screen import console, grid
from impq_opt.costs import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from impq_opt.rounds.comparison import Comparison, Estimate
    from impq_opt.rounds.recipes import Published
    from impq_opt.rounds.record import Cost

__all__ = ["print_comparison"]

_COLUMNS = (
    "strategy", ">round", ">epochs", ">B_w,eff", ">B_a,eff", ">CR", ">storage", ">C_C", ">validation", ">test",
)  # fmt: skip


def print_comparison(told: Comparison, published: Sequence[Published] = ()) -> None:
    """Print a row for every round of every strategy, what they come to, and the slides' rows beside."""
    out, table = console(), grid(*_COLUMNS, title=told.title)
    for row in told.trails:
        table.add_row(
            row.strategy, str(row.round), str(row.epochs), _text(row.bits), _text(row.activation_bits),
            f"{16 / row.bits.mean:.2f}", _cost(row.costs, "storage"), _cost(row.costs, "slides"),
            _percent(row.validation), _percent(row.test),
        )  # fmt: skip
    out.print(table)
    out.print(
        "means over seeds +- standard errors; C_C by the slides' convention (adders, and 576 a convolution output)"
    )
    for sentence in (*_reached(told), *_against_end(told), *_advantage(told)):
        out.print(sentence)
    if published:
        rows = grid("published", ">B_w", ">B_a", ">float", ">top-1", ">C_C", "", title="the slides' table")
        for line in published:
            numbers = (line.activation_bits, line.float_accuracy, line.accuracy, line.operations)
            rows.add_row(line.method, line.weight_bits, *("-" if n is None else f"{n:g}" for n in numbers), line.note)
        out.print(rows)


def _reached(told: Comparison) -> list[str]:
    return [
        f"{name}: as accurate as {told.reference} ends with {_text(row.bits)} bits ({row.seeds_that_reach_it} of "
        f"{row.seeds} seeds), and no larger after {_text(row.epochs)} epochs"
        for name, row in told.reached.items()
    ]


def _against_end(told: Comparison) -> list[str]:
    return [
        f"{name}: ends with {_text(rows[-1].bits, '+')} bits, {_percent(rows[-1].validation, '+')} % validation and "
        f"{_percent(rows[-1].test, '+')} % test accuracy against {told.reference}"
        for name, rows in told.against_end.items()
        if name != told.reference and rows
    ]


def _advantage(told: Comparison) -> list[str]:
    lines = []
    for name, rows in told.advantage.items():
        at = ", ".join(f"{_percent(row.difference)} at {row.bits.mean:.2f} bits" for row in rows)
        lines += [f"{name}: accuracy above {told.reference}'s at equal bits [%]: {at}"] if rows else []
    return lines


def _text(estimate: Estimate | None, sign: str = "", *, digits: int = 3, factor: float = 1.0) -> str:
    """Return a mean and its standard error, where there is one that is not 0."""
    if estimate is None:
        return "-"
    error = f" +- {factor * estimate.stderr:.{digits}f}" if estimate.stderr > 0 else ""
    return f"{factor * estimate.mean:{sign}.{digits}f}{error}"


def _percent(estimate: Estimate | None, sign: str = "") -> str:
    return _text(estimate, sign, digits=2, factor=100.0)


def _cost(costs: Mapping[str, Cost], name: str) -> str:
    return format_quantity(costs[name].value, costs[name].unit) if name in costs else "-"
