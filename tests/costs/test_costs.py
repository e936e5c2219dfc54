"""Costs against published counts, against a really quantized network, and from the command line."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from graphs import SHAPES, graph, slow_cost
from known import known

from impq_opt import Group, Problem, solve
from impq_opt.cli import run
from impq_opt.errors import OptionError, ProblemError
from impq_opt.insight.cost_at import cost_at, uniform_bits
from impq_opt.insight.picture import graph_svg, network_graph
from impq_opt.instance.cost_row import cost_row
from impq_opt.problems.mobilenet import mobilenet_v1

# (weight bits, activation bits) -> the C_C column of the slides, the product and Sakr's adders, in 10^9.
TABLE = {
    (8, 8): (52.4, 36.40, 49.46),
    (6, 6): (34.2, 20.47, 31.28),
    (5, 5): (26.8, 14.22, 23.89),
    (5, 8): (37.0, 22.75, 34.12),
    (4, 8): (31.9, 18.20, 29.00),
}


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return mobilenet_v1()


def test_mobilenet_has_the_published_counts(mobilenet: Any) -> None:
    weights = mobilenet.weights()
    assert int(mobilenet.sizes[weights].sum()) == 4_209_088
    assert int(weights.sum()) == 11_944
    assert int((~weights).sum()) == 28
    assert int(mobilenet.macs.sum()) == 568_740_352


@pytest.mark.parametrize("bits", TABLE)
def test_the_slides_uniform_rows(mobilenet: Any, bits: Any) -> None:
    found = [
        float(cost_at(mobilenet, uniform_bits(mobilenet, *bits), name)) / 1e9
        for name in ("slides", "bit-operations", "adders")
    ]
    assert round(found[0], 1) == TABLE[bits][0]
    assert [round(x, 2) for x in found[1:]] == list(TABLE[bits][1:])


def test_the_slides_row_that_fits_no_convention(mobilenet: Any) -> None:
    """PACT at 4, 4 bits says 15.9: no formula here does."""
    assert round(float(cost_at(mobilenet, uniform_bits(mobilenet, 4, 4), "slides")) / 1e9, 2) == 20.55


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_outside_the_candidates_have_a_cost(shape: Any) -> None:
    problem = graph(shape)
    bits = np.random.default_rng(0).choice([1.0, 4.25, 7.0], len(problem))
    for name in ("storage", "bit-operations", "adders", "slides", "peak-activation-memory"):
        assert cost_at(problem, bits, name) == slow_cost(problem, bits.tolist(), name)


def test_a_table_is_known_at_its_candidates_alone() -> None:
    problem = Problem.from_tables([[1, 2], [3, 5]], [[0.1, 0.0], [0.1, 0.0]], bits=[2, 4])
    assert cost_at(problem, [2, 4], "cost") == 6
    with pytest.raises(OptionError, match="has no value there"):
        cost_at(problem, [2, 3], "cost")


def test_lifetimes_from_the_order_of_the_layers() -> None:
    problem = graph("branch")
    problem = Problem(**{**problem.__dict__, "steps": None})
    # w0, w1 read a0 in steps 1 and 2, w2 reads a1 in step 3: they are never in memory together but at step 2.
    bits = np.full(len(problem), 2.0)
    sizes = problem.sizes[~problem.weights()]
    assert cost_at(problem, bits, "peak-activation-memory") == 2 * int(sizes.sum())
    unread = Problem(**{**problem.__dict__, "reads": None, "macs": None})
    with pytest.raises(ProblemError, match="no weight group reads it"):
        cost_at(unread, bits, "peak-activation-memory")


# -- a network that is really quantized --------------------------------------------------------------------------------


def test_costs_agree_with_a_quantized_network() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from impq_opt.measure import measure
    from impq_opt.quantize import activation_quantizers, quantize, quantized_weights

    class Residual(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            conv = torch.nn.Conv2d
            self.stem, self.depthwise = conv(1, 4, 3, padding=1), conv(4, 4, 3, padding=1, groups=4)
            self.pointwise, self.down, self.fc = conv(4, 4, 1), conv(4, 6, 3, stride=2), torch.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.stem(x))
            x = x + torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
            return self.fc(torch.relu(self.down(x)).mean((2, 3)))

    torch.manual_seed(0)
    network = Residual().eval()
    inputs = torch.randn(32, 1, 8, 8)
    problem = measure(network, [inputs], groups="kernel", bits=(2, 3, 4, 6, 8))
    answer = solve(problem, bound=3e-4, minimize="bit-operations")
    assert len(set(answer.bits.tolist())) > 2
    quantized = quantize(network, problem, answer)

    # Bits of a kernel from its values: the top level of a B-bit mid-rise quantizer of range M is M (1 - 2^-B).
    kernel_bits = {}
    for name, weight in quantized_weights(quantized).items():
        top = weight.value.flatten(1).abs().amax(1) / weight.latent.flatten(1).abs().amax(1)
        kernel_bits[name.removesuffix(".weight")] = [round(-math.log2(1 - t)) for t in top.tolist()]
    elements = {name: getattr(network, name).weight[0].numel() for name in kernel_bits}
    storage = sum(elements[name] * sum(bits) for name, bits in kernel_bits.items())
    assert cost_at(problem, answer.bits, "storage") == storage

    with FlopCounterMode(display=False) as counter:
        network(inputs[:1])
    flops = {name.rpartition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    activation_bits = {label: found.bits for label, found in activation_quantizers(quantized).items()}
    reads = {"depthwise": "relu", "pointwise": "relu#2", "down": "add", "fc": "relu#4"}
    operations = 0
    for name, bits in kernel_bits.items():
        macs = flops[name] // 2 // len(bits)
        operations += macs * sum(bits) * (activation_bits[reads[name]] if name in reads else 8)
    assert answer.exact_cost == operations


# -- the graph, and the command line ----------------------------------------------------------------------------------


def test_the_picture_keeps_a_tie_short_and_a_long_name_in_its_box() -> None:
    long = "block.0." + "inner." * 20 + "conv"
    groups = [Group(f"a{k}", 8, 0.1, kind="activation") for k in range(6)] + [Group("sum", 8, 0.1, kind="activation")]
    weights = [Group(f"w{k}" if k else long, 8, 0.1, reads=f"a{k}", macs=8) for k in range(6)]
    picture = ElementTree.fromstring(graph_svg(Problem.declare(groups + weights, ties=[("a5", "sum")])))
    texts = {known(text.text): text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    heights = {name: float(known(texts[name].get("y"))) for name in ("a4", "sum", "a5")}
    assert heights["a4"] < heights["sum"] < heights["a5"]
    assert [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")][-1] == long
    assert max(map(len, texts)) < 66


@pytest.mark.parametrize("shape", SHAPES)
def test_the_graph_holds_every_read_and_tie(shape: Any) -> None:
    problem = graph(shape).revise(pins={"w1": 3})
    found = network_graph(problem)
    macs = sum(data.get("macs", 0) for _, _, data in found.edges(data=True))
    further = 0 if problem.also_reads is None else int(problem.also_reads[:, 2].sum())
    assert macs == int(known(problem.macs).sum()) + further
    assert sum("tied" in data for _, _, data in found.edges(data=True)) == len(problem.ties)
    picture = ElementTree.fromstring(graph_svg(problem, np.full(len(problem), 3.0)))
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert set(problem.names.labels) <= texts
    drawn = [box for box in picture.iter("{http://www.w3.org/2000/svg}rect") if box.get("rx") == "4"]  # no legend
    boxes = [(box.get("x"), float(known(box.get("y")))) for box in drawn]
    assert len(set(boxes)) == len(boxes) == network_graph(problem).number_of_nodes()


def test_cost_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["cost", "mobilenet-v1-synthetic", "--bits", "8,8", "--bits", "4,8", "--convention", "slides", "--json"])
        == 0
    )
    (record,) = json.loads(capsys.readouterr().out)
    assert record["unit"] == "bit-op"
    assert record["values"] == {"8,8": 52_360_905_304, "4,8": 31_906_427_384}
    assert run(["cost", "mobilenet-v1-synthetic", "--bits", "8,8,8"]) == 2
    assert "--bits" in capsys.readouterr().err
    assert run(["cost", "mobilenet-v1-synthetic", "--convention", "slide"]) == 2
    assert "did you mean 'slides'" in capsys.readouterr().err


def test_graph_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["graph", "mobilenet-v1-synthetic", "-o", str(tmp_path / "g.svg")]) == 0
    assert capsys.readouterr().out == ""
    ElementTree.parse(tmp_path / "g.svg")
    assert run(["graph", "mobilenet-v1-synthetic", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert sum(edge["macs"] for edge in record["edges"]) == 568_740_352


def test_two_budgets_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["solve", "mobilenet-v1-synthetic", "--minimize", "bit-operations", "--bound", "0.01"]
    assert run([*arguments, "--budget", "storage=3.4MiB", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "optimal"
    assert Fraction(record["damage"]) <= Fraction(0.01)


def test_a_peak_budget_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["solve", "mobilenet-v1-synthetic", "--bits", "2,4,8", "--bound", "0.05"]
    assert run([*arguments, "--budget", "peak-activation-memory=1.1MiB"]) == 0
    out = capsys.readouterr().out
    assert "peak-activation-memory" in out
    assert "1.1 MiB" in out


@pytest.mark.parametrize("shape", SHAPES)
def test_costs_by_group_add_up(shape: Any) -> None:
    problem = graph(shape)
    answer = solve(problem, bound=0.05)
    row = cost_row(problem, {"bit-operations": 1})
    shares = row.by_group(problem.candidates, known(answer.choice), known(answer.choice))
    assert int(shares.sum()) + row.constant == known(answer.exact_cost) / row.quantum
    assert not shares[~problem.weights()].any()
