"""The frontier and the report: their numbers, the page in a real browser, and the pictures."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER, PROBE, browse

from impq_opt import Group, GroupNames, Problem, solve
from impq_opt.cli import run
from impq_opt.costs import format_quantity
from impq_opt.errors import AllocationError
from impq_opt.files import save_allocation, save_problem
from impq_opt.insight.frontier import frontier as sweep
from impq_opt.report import Measured, Report, Strategy, render_page
from impq_opt.report.curve import curve, knee, thin
from impq_opt.report.layers import layers_of
from impq_opt.report.pictures import write_pictures


def network(seed: int = 0, groups: int = 4) -> Problem:
    """Return a kernel-wise problem with activations."""
    rng = np.random.default_rng(seed)
    names = GroupNames(("conv</script>1", "layer1.conv", "relu"), ((groups,), (2 * groups,), ()))
    sizes = np.concatenate([np.full(groups, 27), np.full(2 * groups, 36), [1024]])
    kinds = np.concatenate([np.zeros(3 * groups, dtype=int), [1]])
    sensitivities = 10 ** rng.uniform(-2, 1, len(sizes))
    return Problem.from_sensitivities(
        sizes, sensitivities, names=names, kinds=kinds, bound=0.05, objective={"representational": 1}
    )


def report_of(problem: Any) -> Any:
    found = solve(problem)
    rounds = [
        {"round": k, "bits": [], "status": "optimal", "effective_bits": {"weights": 4.0 - k, "activations": None},
         "damage": 0.1 * k, "accuracy": {"validation": 0.9 - 0.01 * k, "test": None}}
        for k in range(3)
    ]  # fmt: skip
    return Report(
        "<b>A title</b>",
        found,
        curve(found, sweep(problem), [solve(problem, bound=0.5)]),
        [Strategy("exact", found), Strategy("uniform", solve(problem, solver="uniform"))],
        [Measured("at 0.05", 0.05, 0.01, 0.008, 0.02, 0.012, 0.9), Measured("none", 0.01, 0.0, 0.0, 0.001)],
        rounds,
    )


# -- the frontier --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_hull_points_are_optimal_at_their_own_damage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, damage = rng.integers(1, 50, (5, 3)), rng.uniform(0, 1, (5, 3))
    hull = sweep(Problem.from_tables(cost, damage))
    rows = np.arange(5)
    every = [(int(cost[rows, c].sum()), float(damage[rows, c].sum())) for c in product(range(3), repeat=5)]
    assert len(hull) > 1
    for place in range(len(hull)):
        choice = hull.choice(place)
        assert hull.cost[place] == cost[rows, choice].sum()
        assert hull.damage[place] == pytest.approx(damage[rows, choice].sum(), rel=1e-12)
        assert not [c for c, d in every if d <= hull.damage[place] * (1 - 1e-12) and c < hull.cost[place]]
    assert (np.diff(hull.cost) > 0).all()
    assert (np.diff(hull.damage) < 0).all()


def test_the_hull_respects_pins_and_ties() -> None:
    problem = network().revise(pins={"relu": 3}, ties=[["layer1.conv"]])
    hull = sweep(problem)
    for place in (0, len(hull) // 2, len(hull) - 1):
        bits = problem.candidates.bits(hull.choice(place))
        assert bits[-1] == 3
        assert len(set(bits[4:12].tolist())) == 1
    names = {hull.moved(k).rpartition("=")[0] for k in range(1, len(hull))}
    assert "relu" not in names
    assert "layer1.conv[0]" in names


def test_small_damages_keep_their_digits() -> None:
    hull = sweep(Problem.from_sensitivities([1, 1], [1e12, 1e-9], bits=(1, 30)))
    assert hull.damage[-1] == pytest.approx(1e12 * 4.0**-30 + 1e-9 * 4.0**-30, rel=1e-12)


def test_thinning_keeps_the_ends_and_the_order() -> None:
    places = thin(np.geomspace(100, 1e-6, 5000), 50)
    assert len(places) <= 50
    assert (places[0], places[-1]) == (0, 4999)
    assert (np.diff(places) > 0).all()
    assert thin(np.array([1.0, 0.0])).tolist() == [0, 1]


def test_the_knee_is_where_the_curve_bends() -> None:
    damage = np.array([1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    cost = np.array([10.0, 11, 12, 13, 30, 60, 100])
    assert knee(cost, damage) == 3


@pytest.fixture
def files(tmp_path: Path) -> Any:
    problem = network()
    save_problem(problem, tmp_path / "problem.toml")
    save_allocation(solve(problem), tmp_path / "allocation.json")
    return tmp_path


def test_frontier_command(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name, out = str(files / "problem.toml"), files / "frontier.csv"
    arguments = ["frontier", name, "--exact", "0.05", "--exact", "0.5", "--solver", "greedy", "-o", str(out)]
    assert run([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    hull = sweep(network())
    assert [float(row["cost"]) for row in rows if row["kind"] == "hull"] == hull.cost.tolist()
    assert [float(row["damage"]) for row in rows if row["kind"] == "hull"] == hull.damage.tolist()
    assert len(record["hull"]) == len(hull)
    exact = [one for one in record["points"] if one["kind"] == "exact"]
    assert [one["cost"] for one in exact] == [solve(network(), bound=b).cost for b in (0.05, 0.5)]
    uniform = {one["label"] for one in record["points"] if one["kind"] == "uniform"}
    assert uniform == {"1 bit", *(f"{b} bits" for b in range(2, 9))}
    assert run(["frontier", name]) == 0
    assert "the knee" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_frontier_pictures(suffix: str, files: Any) -> None:
    pytest.importorskip("matplotlib")
    out = files / f"frontier.{suffix}"
    assert run(["frontier", str(files / "problem.toml"), "-o", str(out)]) == 0
    first = out.read_bytes()
    assert first[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    assert run(["frontier", str(files / "problem.toml"), "-o", str(out)]) == 0
    assert out.read_bytes() == first


def test_the_frontier_of_coupled_costs_is_refused_in_one_sentence(
    files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [
        Group("conv", size=9, sensitivity=1.0, macs=100, reads="x"),
        Group("x", size=10, sensitivity=1.0, kind="activation"),
    ]
    save_problem(Problem.declare(groups, minimize="bit-operations", bound=0.1), files / "coupled.toml")
    assert run(["frontier", str(files / "coupled.toml")]) == 2
    assert "couples them; ask for exact points" in capsys.readouterr().err
    assert run(["frontier", str(files / "coupled.toml"), "--exact", "0.1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["points"][0]["status"] == "optimal"
    uniform = {one["label"]: one["cost"] for one in record["points"] if one["kind"] == "uniform"}
    assert uniform["3 bits"] == 100 * 3 * 3
    assert record["unit"] == "bit-op"


# -- what the report says ------------------------------------------------------------------------------------------


def test_layers_add_up() -> None:
    problem = network()
    layers = layers_of(solve(problem))
    assert [layer.groups for layer in layers] == [4, 8, 1]
    assert sum(layer.size for layer in layers) == problem.sizes.sum()
    assert sum(layer.cost for layer in layers) == pytest.approx(1)
    assert sum(layer.damage for layer in layers) == pytest.approx(1)
    for layer in layers:
        assert sum(layer.shares.values()) == pytest.approx(1)
        assert layer.bits == pytest.approx(sum(bits * share for bits, share in layer.shares.items()))


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order, and collects what could reach for the network."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[Any] = []
        self.links: list[Any] = []
        self.texts: list[Any] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[k] for k in ("href", "src") if k in attributes]

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def test_the_page_is_whole_and_reaches_for_nothing() -> None:
    text = render_page(report_of(network()))
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", text)
    assert "default-src 'none'" in text
    assert "<b>A title</b>" in page.texts  # escaped, so that it is text


def test_the_same_report_gives_the_same_page() -> None:
    report = report_of(network())
    assert render_page(report) == render_page(report)


def test_the_page_says_what_was_found() -> None:
    report = replace(report_of(network()), curve=None)
    words = " ".join(Page(render_page(report)).texts)
    found = report.allocation
    assert f"{found.cost:,}" in words
    assert f"{found.damage:.17g}" in words
    assert "the allocation is optimal" in words
    assert 'id="point"' not in render_page(report)


def test_an_answer_without_allocation_is_not_reported() -> None:
    with pytest.raises(AllocationError, match="nothing to report: the status is infeasible"):
        Report("x", solve(network(), bound=1e-12))


def test_report_command_finds_the_problem_by_its_digest(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out, figures = files / "report.html", files / "figures"
    arguments = ["report", str(files / "allocation.json"), "-o", str(out), "--figures", str(figures)]
    assert run(arguments) == 0
    Page(out.read_text())
    keys = ["bits-by-depth", "frontier", "sensitivity-by-depth", "sensitivity-by-size", "spread-inside-layers"]
    assert sorted(path.name for path in figures.iterdir()) == sorted(f"{k}.{s}" for k in keys for s in ("png", "svg"))
    (files / "problem.toml").unlink()
    capsys.readouterr()
    assert run(arguments) == 2
    assert "--problem: is needed" in capsys.readouterr().err


def write_run(folder: Any, strategy: str = "exact", seed: int = 0) -> Any:
    """Write a run of two rounds as ``impq-opt rounds`` keeps it; return its last allocation."""
    folder.mkdir(parents=True)
    problem = replace(network(), bound=None)
    records = []
    for number, bound in enumerate((0.01, 0.1)):
        save_problem(problem, folder / f"round-{number:02}.problem.toml")
        found = solve(problem, bound=bound)
        records.append(
            {"round": number, "strategy": strategy, "seed": seed, "bits": [int(b) for b in found.bits],
             "damage": found.damage, "effective_bits": {"weights": found.effective_bits[0], "activations": 8.0},
             "accuracy": {"validation": 0.9 + seed / 100, "test": 0.89}}
        )  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return found


def test_report_of_a_run(files: Any) -> None:
    found = write_run(files / "run")
    out = files / "run.html"
    assert run(["report", str(files / "run"), "-o", str(out)]) == 0
    words = " ".join(Page(out.read_text()).texts)
    assert "Rounds" in words
    assert "89.00 %" in words
    assert f"{found.cost:,}" in words
    assert "Nothing is proved" in words
    assert "optimal: no other" not in words
    # the other strategies are asked for the run's own damage
    exact = solve(replace(network(), bound=None), bound=found)
    assert words.count(format_quantity(exact.cost, "bit")) >= 2


def test_report_of_a_comparison(files: Any) -> None:
    for strategy in ("start", "exact", "iterative"):
        for seed in (0, 1):
            write_run(files / "runs" / f"seed-{seed}" / strategy, strategy, seed)
    write_run(files / "runs" / "seed-0" / "exact-layer", "exact", 0)
    out = files / "runs.html"
    assert run(["report", str(files / "runs"), "-o", str(out)]) == 0
    words = " ".join(Page(out.read_text()).texts)
    assert "exact, round 1" in words
    assert "exact-layer, seed 0: validation" in words
    assert "iterative, seed 1: validation" in words
    assert "start" not in words


def test_measured_mismatch_stands_beside_the_bound(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "mine", "bound": 0.05, "mismatch": 0.0123, "low": 0.01, "high": 0.015, "gaussian": 0.02,
             "accuracy": 0.9, "here": 0.06}]  # fmt: skip
    path, out = files / "validate.json", files / "report.html"
    path.write_text(json.dumps({"confidence": 0.95, "rows": rows}))
    arguments = ["report", str(files / "allocation.json"), "--measured", str(path), "-o", str(out)]
    assert run(arguments) == 0
    words = " ".join(Page(out.read_text()).texts)
    assert "0.0123" in words
    assert "0.01 to 0.015" in words
    path.write_text('{"rows": [{"bound": 1}]}')
    capsys.readouterr()
    assert run(arguments) == 2
    assert "has no bound and measured mismatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", None, "cannot be read"),
        ("a.json", "{", "is not an allocation file"),
        ("a.json", '{"problem_digest": "0"}', "--problem: is needed"),
        ("run/log.jsonl", "", "has no finished round"),
        ("run/log.jsonl", "{}\n", "has no finished round"),
        ("run/other", "", "is it a run's folder?"),
    ],
)
def test_foreign_input_is_told_in_one_sentence(
    name: str, text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if text is not None:
        path.write_text(text)
    assert run(["report", str(path if path.suffix == ".json" else path.parent), "-o", str(tmp_path / "r.html")]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


# -- in a browser --------------------------------------------------------------------------------------------------

ASK = """<script>
const range = document.getElementById("point"), told = document.getElementById("said"), steps = [];
const step = () => steps.push([+range.value, told.textContent, document.querySelectorAll("#cells em")[0].textContent]);
step();
for (const value of [range.max, 0]) { range.value = value; range.dispatchEvent(new Event("input")); step(); }
const plot = document.querySelector('[data-figure=frontier] svg'), frame = plot.getBoundingClientRect();
const click = (x) => { plot.dispatchEvent(new MouseEvent("click", { clientX: x, clientY: frame.top + 20 })); step(); };
click(frame.left + frame.width - 15);
click(frame.left + 70);
document.getElementById("back").click(); step();
const table = document.querySelector("#bits table.data");
const column = (k) => [...table.tBodies[0].rows].map((r) => r.cells[k].textContent);
const heads = [...table.tHead.rows[0].cells], sorted = [];
heads[2].querySelector("button").click(); sorted.push(column(2), heads[2].getAttribute("aria-sort"));
heads[2].querySelector("button").click(); sorted.push(column(2), heads[2].getAttribute("aria-sort"));
const layer = document.querySelector("[data-layer='1'] button");
layer.click();
const kernels = [...document.querySelectorAll(".strip i")].map((i) => i.textContent);
const told_of = document.querySelector(".kernels p").textContent;
layer.click();
const folded = document.querySelectorAll(".kernels").length;
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({
  problems, steps, sorted, kernels, told_of, folded,
  marks: [...document.querySelectorAll("[data-figure=frontier] svg text")].map((t) => t.textContent),
  width: document.documentElement.clientWidth, needs: document.documentElement.scrollWidth,
  charts: [...document.querySelectorAll(".chart")].map((c) => c.querySelectorAll("rect, path, circle").length),
  paper: getComputedStyle(document.body).backgroundColor,
});
document.body.append(answer);
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    text = render_page(report_of(network()))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text.replace("<style>", PROBE + "<style>", 1).replace("</body>", ASK + "</body>"))
    return path


def test_the_page_works_in_a_browser(page: Any) -> None:
    found = browse(page, "--window-size=1200,900")
    assert found["problems"] == []
    assert all(count > 0 for count in found["charts"])
    assert len(found["charts"]) == 7
    assert found["needs"] <= found["width"]
    hull = sweep(network())
    start, last, first, clicked_right, clicked_left, back = found["steps"]
    mine = solve(network())
    assert last[0] == len(thin(hull.damage))  # and one place for the allocation, which is no breakpoint
    assert start[1].startswith("This allocation: ")
    assert f"damage {mine.damage:.6g}" in start[1]
    assert last[1].startswith("Breakpoint: ")
    assert f"{hull.cost[-1]:,.0f}" in last[1]
    assert f"{hull.cost[0]:,.0f}" in first[1]
    assert float(first[2]) < float(last[2])
    assert clicked_right[0] < clicked_left[0]
    assert back == start
    assert "uniform" in found["marks"]
    assert "this allocation" in found["marks"]
    falling, down, rising, up = found["sorted"]
    assert (down, up) == ("descending", "ascending")
    assert [float(bits) for bits in falling] == sorted(map(float, falling), reverse=True)
    assert rising == falling[::-1]
    assert list(map(float, found["kernels"])) == mine.bits[4:12].tolist()
    assert found["told_of"].startswith("8 kernels: ")
    assert found["folded"] == 0


def test_activations_of_one_width_are_said_once() -> None:
    groups = [
        Group(f"conv{k}", size=100, sensitivity=100.0**k, reads=f"relu{k - 1}" if k else "", macs=100) for k in range(3)
    ]
    groups += [Group(f"relu{k}", size=10, sensitivity=1.0, kind="activation") for k in range(3)]
    report = Report("x", solve(Problem.declare(groups, minimize="storage", bound=0.5, pins={"relu*": 8})))
    assert [layer.name for layer in report.layers] == ["conv0", "relu0", "conv1", "relu1", "conv2", "relu2"]
    figure = report.figures["bits-by-depth"]
    assert [line.name for line in figure.series] == ["weights"]
    assert "All activations get 8 bits." in figure.caption
    assert "3 activations, all at 8 bits" in render_page(report)


def test_a_report_says_accuracy_and_bytes_of_what_was_packed(files: Path) -> None:
    torch = pytest.importorskip("torch")
    from impq_opt.quantize import pack, quantize

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    groups = [Group("0", size=48, sensitivity=1.0), Group("2", size=18, sensitivity=3.0)]
    problem = Problem.declare(groups, minimize="storage", bound=0.1)
    mine, other = solve(problem), solve(problem, bound=1.0)
    save_problem(problem, files / "p.toml")
    for name, answer in (("mine", mine), ("other", other)):
        save_allocation(answer, files / f"{name}.json")
        pack(quantize(module, problem, answer), files / f"{name}.safetensors")
    rows = [{"name": "m", "bound": mine.damage, "mismatch": 0.01, "low": 0.0, "high": 0.02, "accuracy": 0.875,
             "float_accuracy": 0.9, "samples": 200}]  # fmt: skip
    (files / "v.json").write_text(json.dumps({"rows": rows}))
    arguments = ["report", str(files / "mine.json"), "--problem", str(files / "p.toml")]
    arguments += ["--measured", str(files / "v.json"), "-o", str(files / "r.html"), "--packed"]
    assert run([*arguments, str(files / "mine.safetensors")]) == 0
    words = " ".join(Page((files / "r.html").read_text()).texts)
    assert f"{(files / 'mine.safetensors').stat().st_size:,} bytes" in words
    assert "87.50 %" in words
    assert "float 90.00 %, on 200 samples" in words
    assert run([*arguments, str(files / "other.safetensors")]) == 2
    assert run([*arguments, str(files / "p.toml")]) == 2


def test_the_page_fits_a_phone(page: Any) -> None:
    """Put the page in a frame of 360 pixels, since a headless window is not made that narrow."""
    frame, inner = page.with_name("phone.html"), page.with_name("inner.html")
    inner.write_text(
        page.read_text().replace("document.body.append(answer);", "parent.postMessage(answer.textContent, '*');")
    )
    frame.write_text(
        '<!doctype html><iframe src="inner.html" style="width:360px;height:800px;border:0"></iframe><script>'
        "addEventListener('message', (e) => { const p = document.createElement('pre'); p.id = 'answer';"
        "p.textContent = e.data; document.body.append(p); });</script>"
    )
    found = browse(frame)
    assert found["problems"] == []
    assert found["width"] <= 360
    assert found["needs"] <= found["width"]


def test_the_page_is_dark_where_the_reader_is(page: Any) -> None:
    light, dark = browse(page), browse(page, "--force-dark-mode")
    assert light["paper"] == "rgb(251, 251, 250)"
    assert dark["paper"] == "rgb(20, 23, 27)"
    assert dark["problems"] == []


def test_damages_whose_sum_no_float64_holds_are_reported(tmp_path: Path) -> None:
    """They are solved and saved, so their report has them: as shares of what cannot be written."""
    problem = Problem.from_tables([[1, 2], [3, 4]], [[1.7e308, 0.1], [1.7e308, 0.1]], names=["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = solve(problem, budget=4)
        assert [(layer.damage, layer.cost) for layer in layers_of(answer)] == [(0.5, 0.25), (0.5, 0.75)]
        assert write_pictures(Report("beyond", answer), tmp_path)
        one_layer = Problem.from_tables([[1, 2], [3, 4]], [[1.7e308, 0.1], [1.7e308, 0.1]])
        assert write_pictures(Report("beyond", solve(one_layer, budget=4)), tmp_path)
        hull = [np.array([9.0, 4.0, 3.0, 2.0]), np.array([1e-3, 1e-2, 1.0, np.inf])]
        assert knee(*hull) == knee(hull[0][:3], hull[1][:3]) == 1
