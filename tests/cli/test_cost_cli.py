"""``impq-opt cost`` on networks by name: the rows of the slides' table, and costs without a measurement."""

from __future__ import annotations

import json

import pytest

from impq_opt.cli import run

# C_C of the slides' uniform MobileNetV1 rows [Gbit-OPs], by weight and activation bits.
ROWS = {"8,8": 52.4, "6,6": 34.2, "5,5": 26.8, "5,8": 37.0, "4,8": 31.9}


def test_the_slides_rows_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [word for bits in ROWS for word in ("--bits", bits)]
    assert run(["cost", "mobilenet-v1", *asked, "--convention", "slides", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert {bits: round(value / 1e9, 1) for bits, value in cost["values"].items()} == ROWS


def test_a_network_costs_what_its_shapes_say(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert run(["cost", "resnet20", "--bits", "4,4", "--convention", "storage", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert cost["values"]["4,4"] == 4 * 268_336


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["resnet20", "--input", "x"], "--input: must be whole numbers"), (["resnet21"], "no such problem")],
)
def test_wrong_networks_get_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert run(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
