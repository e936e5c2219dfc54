"""The page with the slides' MobileNetV1 table: every row, and every figure that can be recomputed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from impq_opt.insight.cost_at import cost_at, uniform_bits
from impq_opt.problems.mobilenet import mobilenet_v1
from impq_opt.rounds.recipes import Published, load_recipe

PAGE = Path(__file__).parents[2] / "docs/howto/slides.md"


def line(row: Published) -> str:
    """Return the line of a row: what is printed, what the formulas give, and whether they agree to the last digit."""
    problem = mobilenet_v1(granularity="layer")
    assert row.activation_bits is not None
    bits = uniform_bits(problem, float(row.weight_bits), row.activation_bits)
    ours = {name: float(cost_at(problem, bits, name)) / 1e9 for name in ("slides", "bit-operations")}
    printed = "-" if row.operations is None else f"{row.operations:.1f}"
    cells = [row.method, row.weight_bits, f"{row.activation_bits:g}", f"{row.accuracy:.2f}", printed]
    cells += [f"{value:.2f}" for value in ours.values()]
    agrees = [name for name, value in ours.items() if f"{value:.1f}" == printed]
    return f"| {' | '.join([*cells, ', '.join(agrees) or '-', row.note or '-'])} |"


def test_the_page_has_every_row_with_its_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = [row for row in text.splitlines() if row.startswith("| ") and row.count("|") == 10][1:]
    published = load_recipe("mobilenet-v1-imagenet").published
    assert table == [line(row) for row in published]
    assert sum(" | slides | " in row for row in table) == 8


@pytest.mark.parametrize(
    ("recipe", "method", "printed", "true"), [("resnet20", "TWN", 0.89, 0.99), ("vgg-small", "BWN", 1.45, 1.41)]
)
def test_changes_that_are_misprinted(recipe: str, method: str, printed: float, true: float) -> None:
    (row,) = [row for row in load_recipe(f"{recipe}-cifar10").published if row.method == method]
    assert row.float_accuracy is not None
    assert round(row.float_accuracy - row.accuracy, 2) == true != printed
    assert f"{printed:.2f}" in row.note and f"{true:.2f}" in row.note
    assert f"{printed:.2f} for {method}" in PAGE.read_text(encoding="utf-8")
