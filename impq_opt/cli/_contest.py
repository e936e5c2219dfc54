"""``impq-opt compare --metric``: what allocations under each metric do to a really quantized network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from impq_opt.cli._choices import METRICS
from impq_opt.cli._common import say
from impq_opt.cli._network import DataOptions, NetworkOptions, need_torch
from impq_opt.cli._progress import native_silence, shown
from impq_opt.cli._screen import console, grid, number, print_json
from impq_opt.errors import OptionError

__all__ = ["MetricName", "compare_metrics"]

MetricName = Annotated[
    str | None,
    METRICS,
    Parameter(help="Compare metrics instead of strategies: all, or names with commas. Needs --network and --data."),
]


def compare_metrics(
    metrics: str,
    network: str | None,
    weights: str | None,
    data: str | None,
    average_bits: str,
    *,
    samples: int,
    seed: int,
    json: bool,
) -> int:
    """Measure by each metric, allocate at equal storage, round without retraining, and print accuracy and mismatch."""
    if network is None or data is None:
        raise OptionError("needs --network and --data", where="--metric", value=metrics)
    need_torch("impq-opt compare --metric")
    from impq_opt.measure import METRICS
    from impq_opt.measure.metrics import load_metric
    from impq_opt.validate.contest import contest

    names = list(METRICS) if metrics == "all" else metrics.split(",")
    for name in names:
        load_metric(name)
    try:
        budgets = [float(text.strip().removesuffix("bpw")) for text in average_bits.split(",")]
    except ValueError:
        raise OptionError("must be numbers", where="--average-bits", value=average_bits) from None
    if not all(1 <= budget <= 8 for budget in budgets):
        raise OptionError("must be from 1 to 8", where="--average-bits", value=average_bits)
    source, model = DataOptions(data), NetworkOptions(weights=weights)
    with native_silence(), shown("comparing metrics") as progress:
        rows = contest(
            model.load(network),
            source.load("train", network),
            source.load("test", network),
            names,
            budgets,
            samples=samples,
            seed=seed,
            tell=say,
            progress=progress,
        )
    if json:
        print_json({"network": network, "weights": weights, "data": data, "rows": [asdict(row) for row in rows]})
        return 0
    table = grid(">bits w", "metric", ">mismatch", ">interval", ">accuracy")
    for row in rows:
        held = row.reality
        accuracy = "-" if held.accuracy is None else f"{held.accuracy:.2%}"
        spread = f"{held.low:.2g} .. {held.high:.2g}"
        table.add_row(f"{row.effective_bits:.2f}", row.metric, number(held.mismatch, 3), spread, accuracy)
    out = console()
    out.print(table)
    reached = rows[0].reality.float_accuracy if rows else None
    out.print(
        f"{rows[0].reality.samples if rows else 0} held-out samples, activations at 8 bits, no retraining"
        + ("" if reached is None else f"; float accuracy {reached:.2%}")
    )
    return 0
