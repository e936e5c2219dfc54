"""Text from files is text everywhere; streams that fail, signals and faults end in a sentence, never in a traceback."""

from __future__ import annotations

import ast
import csv
import html
import html.parser
import io
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER, PROBE, browse

from impq_opt import DamageTable, Problem, solve
from impq_opt.cli import _progress, _screen, run
from impq_opt.cli import problems as problems_command
from impq_opt.costs import TableCost
from impq_opt.errors import ImpqError, OptionError, ProblemError
from impq_opt.files import load_allocation, load_problem, save_allocation, save_problem
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.names import GroupNames
from impq_opt.insight.frontier import frontier as sweep
from impq_opt.report import Measured, Report, Strategy, render_page
from impq_opt.report.curve import curve
from impq_opt.report.figures import Figure, Series
from impq_opt.report.pictures import picture_bytes
from impq_opt.text import (
    csv_text,
    csv_value,
    figure_text,
    html_text,
    json_lines,
    script_json,
    shortened,
    visible,
)

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")} | {
    "PYTHONPATH": str(ROOT)
}

HOSTILE = {
    "closing markup": "[/bold]",
    "link": "[link=x]y",
    "style": "[red on blue]a[/]",
    "emoji": ":smile:",
    "title of the terminal": "\x1b]0;title\x07",
    "clear": "\x1b[2J\x1b[H",
    "eight bits": "\x9b31m",
    "carriage return": "\r",
    "next line": "a\nb",
    "unicode lines": "a\u2028b\u2029c\x85d",
    "tab": "\t",
    "nul": "a\x00b",
    "delete": "a\x7f",
    "comment": "<!--<script>",
    "element": "</script><script>window.pwned=1</script>",
    "image": "<img src=x onerror=window.pwned=1>",
    "cdata": "]]>",
    "attribute": '"onload="window.pwned=1',
    "apostrophe": "'onload='window.pwned=1",
    "entity": "&lt;b&#x3e;",
    "override": "\u202eabc",
    "isolate": "\u2066abc",
    "invisible": "\u200b\ufeff",
    "marks": "\u0301\u0301",
    "pile": "a" + "\u0301" * 40,
    "formula": "=cmd|' /C calc'!A0",
    "sum": "-1+1",
    "plus": "+1",
    "at": "@SUM(1)",
    "wide formula": "\uff1d1",
    "quoted formula": "'=x",
    "mathematics": "$\\frac{",
    "two dollars": "$x^{$",
    "escaped dollar": "\\$x$",
    "percent": "%s",
    "braces": "{0}",
    "underscore": "_x",
    "long": "x" * 300,
    "wide": "\u6f22" * 40,
    "prototype": "__proto__",
}
STRINGS = list(HOSTILE.values())


def problem_of(strings: list[str]) -> Problem:
    """Return a problem whose names are ``strings``, and whose every other text is all of them in a row."""
    text = "".join(strings)
    count = len(strings)
    rng = np.random.default_rng(count)
    damage = rng.uniform(0.1, 1, (count, 1)) * np.array([1, 0.1, 0.01])
    cost = TableCost.from_array(
        rng.integers(1, 9, (count, 1)) * np.array([2, 4, 8]), name=f"{text[:60]}.", unit=text, source=text
    )
    names = [f"{string}{'' if string.strip() else '.'}" for string in strings]
    formats = tuple(f"{text[:40]}{k}" for k in range(3))
    return Problem(
        names=GroupNames.explicit(names, names),
        candidates=Candidates(((2.0, 4.0, 8.0),), None, (formats,)),
        damage=DamageTable(damage),
        sizes=rng.integers(10, 100, count),
        kinds=np.arange(count, dtype=np.int8) % 2 if count > 1 else None,
        costs=(cost,),
        objective={cost.name: 1},
        bound=0.25 * count,
        metric=text,
        damage_unit=text,
        provenance={"title": text, "description": text, "nested": {f"{text}!": [text]}},
    )


# Those that something is known to obey, each in every place by itself, and all at once.
ALONE = (
    "closing markup", "title of the terminal", "carriage return", "unicode lines", "comment", "element", "attribute",
    "override", "marks", "formula", "sum", "two dollars", "long",
)  # fmt: skip
WORLDS = {**{name: [HOSTILE[name], f"{HOSTILE[name]}2"] for name in ALONE}, "all": STRINGS}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Problem, str, str]:
    """Return a problem with its file and the file of an answer, which have names of that kind too."""
    strings = WORLDS[request.param]
    problem = problem_of(strings)
    kind = re.sub(r"[/\0]", "", strings[0])[:40]
    paths = tmp_path / f"p{kind}.toml", tmp_path / f"a{kind}.json"
    save_problem(problem, paths[0])
    save_allocation(solve(problem), paths[1])
    return problem, str(paths[0]), str(paths[1])


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command here; what it prints is lines of printable characters, whatever it quotes."""
    status = run(list(arguments))
    printed = capsys.readouterr()
    for text in printed:
        odd = {c for c in text if not c.isprintable() and c != "\n"}
        assert not odd, (arguments[0], odd)
    assert status != 3, printed.err
    return status, printed.out, printed.err


# -- the functions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", STRINGS)
def test_what_is_shown_is_one_line_of_printable_characters(text: Any) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert not re.match("[\u0300-\u036f]", shown)
    assert not re.search("[\u0300-\u036f]{5}", shown)


@pytest.mark.parametrize("before", ["", " ", "a ", "\n", "\x1b", "\u200b"])
def test_a_mark_stands_on_no_letter_but_its_own(before: str) -> None:
    assert visible(f"{before}\u0301").endswith("\\u0301")


def test_every_character_is_shown_or_escaped() -> None:
    for point in (*range(0x3000), *range(0x3000, 0x110000, 97)):
        character = chr(point)
        shown = visible(f"a{character}b")
        assert shown.isprintable()
        if character.isprintable():
            assert shown == f"a{character}b"
        else:
            assert shown == f"a{character.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize(
    "text",
    ["layer1.conv[0,1]", "Gewichtsgr\u00f6\u00dfe", "e\u0301 a\u0302\u0323", "\u6f22\u5b57", "\U0001f600", "", "\\x1b"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_long_names_lose_their_middle() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdefg", 5) == "ab\u2026fg"
    assert all(len(shortened("x" * 50, most)) == most for most in range(2, 50))


class Seen(html.parser.HTMLParser):
    """Collect what a browser would see in a piece of HTML."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.attributes: list[Any] = []
        self.texts: list[Any] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: Any) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("text", STRINGS)
def test_html_and_svg_show_text_and_nothing_else(text: Any) -> None:
    page = f'<p title="{html_text(text)}">{html_text(text)}</p>'
    seen = Seen(page)
    assert seen.tags == ["p"]
    assert seen.attributes == [("title", visible(text))]
    assert "".join(seen.texts) == visible(text)
    assert ET.fromstring(page).text == visible(text)


@pytest.mark.parametrize("text", [*STRINGS, "\ud800", "\udcff"])
def test_json_in_a_script_never_ends_it(text: Any) -> None:
    found = script_json({text: [text, {"a": (text,)}, 1, 1.5, float("inf"), None, True]})
    assert not re.search("[<>&\u2028\u2029]", found)
    assert found.isascii()
    shown = visible(text)
    assert json.loads(found) == {shown: [shown, {"a": [shown]}, 1, 1.5, None, None, True]}


@pytest.mark.parametrize("text", STRINGS)
def test_json_on_a_terminal_means_the_same(text: Any) -> None:
    document = {text: text}
    for lines in (json.dumps(document, indent=2, ensure_ascii=False), json.dumps(document)):
        found = json_lines(lines)
        assert json.loads(found) == document
        assert all(c.isprintable() or c == "\n" for c in found)


def test_csv_runs_no_formula_and_gives_every_string_back() -> None:
    rng = random.Random(4)
    letters = "=+-@\t\r\n'\",;a1 \uff1d\uff0b\uff0d\uff20\x1b"
    strings = [*STRINGS, *("".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(4000))]
    text = csv_text([["head"], *([string] for string in strings)])
    cells = [row[0] for row in csv.reader(io.StringIO(text, newline=""), strict=True)][1:]
    assert [csv_value(cell) for cell in cells] == strings
    assert not [cell for cell in cells if re.match("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]", cell)]


def test_csv_leaves_numbers_alone() -> None:
    assert csv_text([[-1, -1.5, 1e300, float("nan"), "-1", "a"]]) == "-1,-1.5,1e+300,nan,'-1,a\n"


@pytest.mark.parametrize("text", STRINGS)
def test_errors_are_one_line(text: Any) -> None:
    for error in (OptionError(text, where=text, value=text, hint=text), ImpqError(text)):
        assert str(error).isprintable()


# -- every command -----------------------------------------------------------------------------------------------


def test_commands_show_it_as_text(
    world: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    problem, file, answer = world
    names = [visible(name) for name in problem.names if len(visible(name)) <= 30]
    status, out, err = ask(capsys, "solve", file)
    assert (status, err) == (0, "")
    assert all(name in out for name in names)
    assert visible(problem.metric)[:20] in out
    assert visible(file) in out
    assert ask(capsys, "problems", file)[0] == 0
    status, out, _ = ask(capsys, "problems", file)
    assert visible(problem.provenance["description"])[:60] in out
    status, out, _ = ask(capsys, "explain", file, answer, "--count", "100")
    assert status == 0
    assert all(name in out for name in names)
    for name in problem.names:
        status, out, _ = ask(capsys, "explain", "--no-solve-again", "--", file, answer, name)
        assert status == 0
        assert out.startswith(f"{visible(name)}: ")
    assert ask(capsys, "verify", file, answer)[0] == 0
    assert ask(capsys, "frontier", file, "--exact", "1")[0] == 0
    assert ask(capsys, "cost", file, answer)[0] == 0
    assert ask(capsys, "cost", file, answer, f"--convention={problem.costs[0].name}")[0] == 0
    assert ask(capsys, "import", file)[0] == 0
    status, out, _ = ask(capsys, "graph", file, answer)
    picture = ET.fromstring(out)
    assert {element.tag.rpartition("}")[2] for element in picture.iter()} <= {
        "svg",
        "style",
        "text",
        "rect",
        "path",
        "title",
    }
    shown = {element.text for element in picture.iter()}
    assert all(name in shown for name in names)


def test_json_is_json(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    problem, file, answer = world
    for arguments in (
        ["solve", file],
        ["problems", file],
        ["explain", file, answer],
        ["explain", "--", file, answer, problem.names[0]],
        ["verify", file, answer],
        ["frontier", file, "--exact", "1"],
        ["cost", file, answer],
        ["import", file],
        ["graph", file],
    ):
        _, out, _ = ask(capsys, arguments[0], "--json", *arguments[1:])
        found = json.loads(out)
        if arguments[0] == "problems":
            assert found["metric"] == problem.metric
            assert found["provenance"] == json.loads(json.dumps(problem.provenance))
        if arguments[0] == "graph":
            assert [node["name"] for node in found["nodes"]] == list(problem.names)


def test_refusals_quote_it_in_one_line(world: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    problem, file, answer = world
    text = problem.metric
    for arguments in (
        ["solve", f"{tmp_path}/none{text.replace(chr(0), '')[:50]}.toml"],
        ["solve", file, "--pin", f"{text}?=2"],
        ["solve", file, "--solver", text],
        ["solve", file, "--option", f"{text}=1"],
        ["solve", file, "--option", f"states={text}"],
        ["solve", file, "--minimize", f"{text}?"],
        ["solve", file, "--budget", text],
        ["solve", file, "--budget", f"{problem.costs[0].name}={text}"],
        ["solve", file, text],
        ["solve", file, f"--x{text}"],
        ["explain", file, answer, f"{text}?"],
        ["cost", file, "--convention", f"{text}?"],
        ["export", file, answer, "--to", text],
        ["import", file, "--from", text],
        ["frontier", file, "--against", text],
        ["formats", text],
        ["solvers", text],
        ["problems", text],
        [text],
    ):
        status, out, err = ask(capsys, *arguments)
        if status < 2 and text.strip() != text:
            continue  # white space and a number
        assert (status, out) == (2, ""), arguments
        assert err.startswith("impq-opt: ")
        assert err.count("\n") == 1
    status, _, err = ask(capsys, "solve", file, "--bound", "1e-9")
    assert status == 1
    assert err.count("\n") == 1


def test_csv_of_commands_reads_back(world: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    problem, file, answer = world
    out = tmp_path / "out.csv"
    assert ask(capsys, "export", file, answer, "--to", "csv", "--option", "candidates=true", "-o", str(out))[0] == 0
    back = tmp_path / "back.toml"
    assert ask(capsys, "import", str(out), "-o", str(back))[0] == 0
    found = load_problem(back)
    assert list(found.names) == list(problem.names)
    assert found.names.layers == problem.names.layers
    assert found.candidates.labels(0) == problem.candidates.labels(0)
    tables = [out]
    tables.append(tmp_path / "frontier.csv")
    assert ask(capsys, "frontier", file, "--exact", "1", "-o", str(tables[-1]))[0] == 0
    tables.append(tmp_path / "two.csv")
    against = ["--against", "storage", "--points", "2", "--bound", str(float(problem.bound))]
    ask(capsys, "frontier", file, *against, "-o", str(tables[-1]))
    for table in tables:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.reader(lines, strict=True))
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            assert not re.match("[=+\\-@\t\r]", cell)


def test_a_report_holds_no_element_of_the_data(world: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, file, answer = world
    page = tmp_path / "page.html"
    assert ask(capsys, "report", answer, "--problem", file, "-o", str(page))[0] == 0
    seen = Seen(page.read_text(encoding="utf-8"))
    assert seen.tags.count("script") == 3
    assert "img" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(c.isprintable() or c == "\n" for c in page.read_text(encoding="utf-8"))


def test_all_strategies_beside_each_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save_problem(problem_of(STRINGS), tmp_path / "p.toml")
    status, out, _ = ask(capsys, "compare", str(tmp_path / "p.toml"), "--solver", "exact", "--solver", "greedy")
    assert status == 0
    assert "optimal" in out
    assert ask(capsys, "compare", str(tmp_path / "p.toml"), "--solver", "exact", "--json")[0] == 0


def test_commands_without_problems() -> None:
    for arguments in (["formats"], ["formats", "csv"], ["solvers"], ["solvers", "exact"], ["completion", "bash"]):
        assert run(arguments) == 0


def test_runs_and_measurements_are_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from impq_opt.cli import measure
    from impq_opt.cli._rounds_table import print_comparison
    from impq_opt.rounds.comparison import Advantage, Comparison, Estimate, Mean

    text = "".join(STRINGS)
    one = Estimate(1.0, 0.0, 1)
    row = Mean(text, 1, 1, one, None, {}, one, one, one, one)
    gains = {f"{text}2": [Advantage(1, one, one)]}
    print_comparison(Comparison(text, {}, [row], reference=text, advantage=gains))
    measured = Problem.from_sensitivities(
        [3, 4], [1.0, 2.0], names=[text, f"{text}2"], metric=text, provenance={"samples": text, "chunks": text}
    )
    measure._print(measured)
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "[/bold]" in out


def test_the_console_reads_nothing_into_strings(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(STRINGS)
    out = _screen.console()
    table = _screen.grid(text, f">{text}", title=text)
    table.add_row(text, text)
    for shown in (text, table, _screen.styled(text, (text, "bold"))):
        out.print(shown)
    for line in capsys.readouterr().out.split("\n"):
        assert line.isprintable()


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_progress_reads_nothing_into_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    text = "".join(STRINGS[:14])
    with _progress.progress(text):
        pass
    with _progress.watched("first") as tell:
        tell(text)
        time.sleep(0.2)
    terminal: Any = sys.stderr
    shown = terminal.getvalue()
    assert "[/bold]" in shown
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.replace("\r", ""))
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_no_command_prints_past_the_console() -> None:
    """A string reaches a terminal through few hands, which are looked at here; nothing else prints or has markup."""
    hands = {"_streams.py": 1, "_common.py": 1, "completion.py": 1}
    for file in sorted((ROOT / "impq_opt" / "cli").glob("*.py")):
        source = file.read_text()
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert len(prints) == hands.get(file.name, 0), file
        assert not re.search(r"\[/?(bold|red|green|yellow|dim)?\]\{|\[/\]|from_markup", source), file
        if file.name not in ("_screen.py", "_help.py", "_picture.py"):
            assert "Text(" not in source, file


# -- figures and the page ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_figures_are_drawn_whatever_they_are_called(suffix: str) -> None:
    pytest.importorskip("matplotlib")
    numbers = [float(k) for k in range(len(STRINGS))]
    text = "".join(STRINGS)
    series = [
        Series(text, numbers, [1.0 + n for n in numbers], "line", STRINGS) for text in STRINGS[:: 2 + len(suffix)]
    ]
    data = picture_bytes(Figure("key", text, text, "$x^{$", "$\\frac{$", series, y_log=True, ticks=STRINGS), suffix)
    if suffix == "svg":
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(data).iter()}
        assert not tags & {"script", "foreignObject", "image", "a"}


@pytest.mark.parametrize("text", STRINGS)
def test_labels_of_figures_are_no_formulas(text: Any) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.text import Text

    label: Any = Text(text=figure_text(text))
    shown, formula = label._preprocess_math(figure_text(text))
    assert formula is False
    assert shown.lstrip() == shortened(visible(text), 60)


ASK = """<script>
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({
  problems, pwned: typeof window.pwned, images: document.images.length, scripts: document.scripts.length,
  charts: [...document.querySelectorAll(".chart")].map((c) => c.querySelectorAll("rect, path, circle").length),
  cells: [...document.querySelectorAll("#cells b")].map((b) => b.title.replace(/ \\((weight|activation)\\)$/, "")),
  said: document.getElementById("said").textContent, title: document.title,
});
document.body.append(answer);
</script>"""


def test_the_page_is_drawn_and_runs_nothing_of_the_data(tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    problem = problem_of(STRINGS)
    text = "".join(STRINGS)
    found = solve(problem)
    rounds = [
        {"round": k, "bits": [], "strategy": text, "seed": k, "status": text, "damage": 0.1,
         "effective_bits": {"weights": 4.0 - k}, "accuracy": {"validation": 0.9}}
        for k in range(2)
    ]  # fmt: skip
    report = Report(
        text, found, curve(found, sweep(problem), []), [Strategy(text, found)],
        [Measured(text, 0.05, 0.01, 0.008, 0.02, 0.012, 0.9)], rounds, {text: text},
    )  # fmt: skip
    page = render_page(report)
    assert html.unescape(page).count(visible(text)) > 5
    path = tmp_path / "page.html"
    path.write_text(page.replace("<style>", PROBE + "<style>", 1).replace("</body>", ASK + "</body>"), encoding="utf-8")
    seen = browse(path, "--window-size=1200,900")
    assert seen["problems"] == []
    assert seen["pwned"] == "undefined"
    assert seen["images"] == 0
    assert seen["scripts"] == 5  # the page's three, and the two of this test
    assert len(seen["charts"]) >= 5
    assert all(count > 0 for count in seen["charts"])
    assert sorted(seen["cells"]) == sorted(map(visible, problem.names.layers))
    assert seen["said"]


# -- in processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hostile") / "p.toml"
    save_problem(problem_of(STRINGS), path)
    return str(path)


def in_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal of 80 columns; return its exit status and all that the terminal was sent."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "impq_opt", *arguments],
        stdout=other,
        stderr=other,
        env=ENVIRONMENT | {"TERM": "xterm-256color", "COLUMNS": "80"} | environment,
    )
    os.close(other)
    sent = b""
    while True:
        try:
            part = os.read(main, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        sent += part
    os.close(main)
    return process.wait(timeout=60), sent.decode()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
@pytest.mark.parametrize("command", ["solve", "problems", "export"])
def test_a_terminal_obeys_only_us(hostile: Any, command: str, variables: Any, tmp_path: Path) -> None:
    arguments = [command, hostile]
    if command == "export":
        save_allocation(solve(load_problem(hostile)), tmp_path / "a.json")
        arguments += [str(tmp_path / "a.json"), "--to", "csv"]
    status, sent = in_terminal(*arguments, **variables)
    assert status == 0
    ours = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent.replace("\r", ""))  # colours, and the cursor of the progress
    assert all(c.isprintable() or c == "\n" for c in ours), {c for c in ours if not c.isprintable()}
    assert "\x1b]" not in sent
    assert "\x1b[2J" not in sent
    assert "[/bold]" in ours


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_ascii_terminals_show_it_too(hostile: Any, variables: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "impq_opt", "explain", hostile, "missing\u00e4.json"],
        capture_output=True, env=ENVIRONMENT | {"COLUMNS": "80"} | variables, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"impq-opt: missing")
    done = subprocess.run(
        [sys.executable, "-m", "impq_opt", "problems", hostile],
        capture_output=True, env=ENVIRONMENT | {"COLUMNS": "80"} | variables, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("ascii")
    long = [line for line in text.splitlines() if len(line) > 80]
    assert not [line for line in long if len(line.split()) > 1]  # a word stays whole
    assert "\\u6f22" in text


def test_names_of_files_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\x1b.toml"
    save_problem(problem_of(["a", "b"]), os.fsdecode(name))
    for arguments in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "impq_opt", "problems", name, *arguments],
            capture_output=True, env=ENVIRONMENT, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"udcff" in done.stdout
        assert b"\x1b" not in done.stdout


FULL = "impq-opt: stdout cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("problems > /dev/full", 1, FULL),
        ("problems --json > /dev/full", 1, FULL),
        ("graph resnet20-fashion-mnist > /dev/full", 1, FULL),
        ("completion bash > /dev/full", 1, FULL),
        ("--help > /dev/full", 1, FULL),
        ("--version >&-", 1, "impq-opt: stdout cannot be written: Bad file descriptor\n"),
        ("solve --bound 0.01 <&- >&-", 1, "impq-opt: stdout cannot be written: Bad file descriptor\n"),
        ("solve --bound 0.01 <&- >&- 2>&-", 1, ""),
        ("solve nowhere 2>&-", 2, ""),
        ("solve nowhere 2> /dev/full", 2, ""),
        ("nowhere >&- 2>&-", 2, ""),
        ("problems | head -n 1 > /dev/null; (exit ${PIPESTATUS[0]})", 0, ""),
        ("solve --bound 1e-12 | head -n 0; (exit ${PIPESTATUS[0]})", 1, None),
    ],
)  # fmt: skip
def test_streams_that_fail(command: str, status: int, says: Any) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m impq_opt {command}"],
        capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert says is None or done.stderr == says


def test_closed_streams_do_not_end_in_a_file(tmp_path: Path) -> None:
    """A file that is opened where stdout was closed gets its number; nothing that is printed may end in it."""
    out = tmp_path / "a.json"
    command = f"{sys.executable} -m impq_opt solve --bound 0.01 -o {out} <&- >&- 2>&-"
    subprocess.run(["bash", "-c", command], env=ENVIRONMENT, check=False, timeout=60)
    assert json.loads(out.read_text())["status"] == "optimal"
    assert list(tmp_path.iterdir()) == [out]


def with_mark(mark: str) -> list[int]:
    """Return the processes that run with ``mark`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                mark.encode() in (folder / "environ").read_bytes()
                and b"\nState:\tZ" not in (folder / "status").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("command", "longest"),
    [
        ("problems", 0.6),
        ("solve efficientnet-lite0-imagenet-kernel --bound 0.01 -o {}/a.json", 1.5),
        ("frontier resnet20-fashion-mnist-kernel --exact 0.01 -o {}/f.csv", 1.5),
        ("report {}/x.json --problem resnet20-fashion-mnist-kernel -o {}/r.html --figures {}/figures", 3.0),
        ("compare efficientnet-lite0-imagenet-kernel --bound 0.01 --time-limit 30", 4.0),
    ],
)
def test_an_interrupt_at_any_instant(command: str, longest: float, tmp_path: Path) -> None:
    """Send Ctrl-C as a terminal does, to all processes of the group."""
    rng = random.Random(command)
    if "x.json" in command:
        assert run(["solve", "resnet20-fashion-mnist-kernel", "--bound", "0.01", "-o", str(tmp_path / "x.json")]) == 0
    statuses = set()
    for number in range(5):
        mark = f"IMPQ_TEST_MARK={os.getpid()}-{number}-{longest}"
        process = subprocess.Popen(
            [sys.executable, "-m", "impq_opt", *command.replace("{}", str(tmp_path)).split()],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=ENVIRONMENT | dict([mark.split("=")]),
        )  # fmt: skip
        time.sleep(0.1 + rng.random() * longest)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if "impq_opt" not in err and "Traceback" in err:
            continue  # Python itself was not yet there
        assert "Traceback" not in err
        assert "Process" not in err
        statuses.add(process.returncode)
        if process.returncode == 130:
            assert err.endswith("impq-opt: interrupted\n")
        deadline = time.monotonic() + 20
        while (left := with_mark(mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left
    assert statuses - {0}  # some came in time: 1 where there was an answer so far
    assert statuses <= {0, 1, 130}
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    if (tmp_path / "a.json").exists():
        from impq_opt.problems import load

        load_allocation(tmp_path / "a.json", load("efficientnet-lite0-imagenet-kernel"))


SLEEPER = """
import sys, time
from dataclasses import dataclass
from impq_opt import Solver
from impq_opt.solvers import TABLE

TABLE["sleeper"] = "sleeper:Sleeper"

@dataclass(frozen=True)
class Sleeper(Solver):
    name = "sleeper"
    summary = "sleeps"
    proves = "nothing"

    def run(self, instance, control):
        open("asleep", "w").close()
        time.sleep(600)

if __name__ == "__main__":
    from impq_opt.cli import main
    sys.argv = ["impq-opt", "compare", "--bound", "0.01", "--solver", "sleeper", "--time-limit", "600"]
    main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_strategies_end_with_the_one_that_asked(number: Any, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    mark = f"IMPQ_TEST_MARK={os.getpid()}-{number}"
    environment = ENVIRONMENT | dict([mark.split("=")]) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen(
        [sys.executable, "sleeper.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "asleep").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    helpers = [pid for pid in with_mark(mark) if pid != process.pid]
    assert len(helpers) >= 2
    for pid in helpers:  # Ctrl-C is for the one that asked alone
        masks = re.findall(r"Sig(?:Blk|Ign):\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        assert any(int(mask, 16) & 1 << signal.SIGINT - 1 for mask in masks)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    while (left := with_mark(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert out == b""
    assert (process.returncode, err) == (
        (130, b"impq-opt: interrupted\n") if number == signal.SIGINT else (-number, b"")
    )


def test_an_ignored_interrupt_stays_ignored() -> None:
    process = subprocess.Popen(
        ["bash", "-c", f"trap '' INT; exec {sys.executable} -m impq_opt problems"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    for _ in range(5):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "resnet20-fashion-mnist" in out


def test_other_programs_keep_their_own_interrupt() -> None:
    code = "import signal, impq_opt, impq_opt.cli; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


# -- faults of ours ----------------------------------------------------------------------------------------------


def test_a_fault_of_ours_is_told_as_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.delenv("IMPQ_OPT_DEBUG", raising=False)
    monkeypatch.setattr(problems_command, "_summary", broken)
    assert run(["problems"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "fault of impq-opt" in printed.err
    assert "IMPQ_OPT_DEBUG=1" in printed.err
    assert "secret" not in printed.err
    monkeypatch.setenv("IMPQ_OPT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["problems"])


def test_what_the_system_refuses_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/some/\x1bfile")

    monkeypatch.delenv("IMPQ_OPT_DEBUG", raising=False)
    monkeypatch.setattr(problems_command, "_summary", broken)
    assert run(["problems"]) == 1
    assert capsys.readouterr().err == "impq-opt: /some/\\x1bfile: the system says: Permission denied\n"


@pytest.mark.parametrize(
    "line", ['{"round": "1", "bits": []}', '{"round": 0, "bits": [1], "accuracy": 3}', "[" * 100_000, "\u2028"]
)
def test_a_log_of_other_types_is_told(line: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(line, encoding="utf-8")
    status, out, err = ask(capsys, "report", str(tmp_path), "-o", str(tmp_path / "r.html"))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_warnings_are_sentences() -> None:
    code = """
import sys, warnings
from impq_opt.cli import COMMANDS, main
from impq_opt.cli import problems
problems._summary = lambda *_: (warnings.warn("one\\nthing", UserWarning), {"name": "x"})[1]
problems._print_list = lambda found: None
sys.argv = ["impq-opt", "problems"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert set(done.stderr.splitlines()) == {"impq-opt: warning: one\\nthing"}


@pytest.mark.parametrize("part", ["what", "where", "value", "hint"])
def test_an_error_is_no_longer_than_can_be_read(part: str) -> None:
    parts: dict[str, object] = {"what": "is wrong", "where": "p.toml", "value": "x", "hint": "know better"}
    parts[part] = "begins " + "\x1b" * 9000 + " ends"
    said = str(ProblemError(parts.pop("what"), **parts))  # type: ignore[arg-type]
    assert len(said) < 2000
    assert said.isprintable()
    assert "begins" in said
    assert part == "value" or "ends" in said
