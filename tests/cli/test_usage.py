"""Wrong command lines: one sentence each, by the option that was given, in the shell's own words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from quick import QUICK

from impq_opt import Problem, files
from impq_opt.cli import run
from impq_opt.cli._common import parse_budgets

D = "resnet20-fashion-mnist"
WRONG = {
    "solve a.json --bound 1": "a.json: is an impq-opt allocation, not an impq-opt problem",
    "verify a.json p.toml": "a.json: is an impq-opt allocation, not an impq-opt problem",
    "verify p.toml p.toml": "p.toml: is an impq-opt problem, not an impq-opt allocation",
    "explain a.json p.toml": "a.json: is an impq-opt allocation, not an impq-opt problem",
    "export a.json p.toml --to csv": "a.json: is an impq-opt allocation, not an impq-opt problem",
    "graph p.toml p.toml": "p.toml: is an impq-opt problem, not an impq-opt allocation",
    "cost p.toml p.toml": "p.toml: is an impq-opt problem, not an impq-opt allocation",
    "report p.toml -o r.html": "p.toml: is an impq-opt problem, not an impq-opt allocation",
    "report a.json -o r.pdf": "--output: writes .html or .htm, got 'r.pdf' (name it r.html)",
    "report a.json --figures f.png": "--figures: names a folder",
    "graph p.toml -o g.png": "--output: writes .svg, got 'g.png' (name it g.svg)",
    "solve p.toml -o x.csv --bound 1": "--output: writes .json, got 'x.csv' (name it x.json)",
    "import p.toml -o p.json": "--output: writes .toml, got 'p.json'",
    "export p.toml a.json --to csv -o x.json": "--output: writes .csv, got 'x.json' (name it x.csv)",
    "frontier p.toml -o x.json": "--output: writes .csv or .png or .svg or .pdf, got 'x.json'",
    "verify p.toml a.json --standalone c.txt": "--standalone: writes .py, got 'c.txt'",
    "solve p.toml": "solve: needs a bound or a budget (for example --bound 0.01)",
    "solve p.toml --bound": "--bound: needs a value",
    "solve p.toml --bound abc": "--bound: must be a number, got 'abc'",
    "solve p.toml --bound 1 --seed 1.5": "--seed: must be a whole number, got '1.5'",
    "solve p.toml --bound 1 --seed 1": "--seed: has no effect: exact draws no random numbers, got '1'",
    "compare p.toml --bound 1 --seed 1": "--seed: has no effect: none of these strategies draws random numbers",
    "compare p.toml --bound 1 --solver exakt --seed 1": "--solver: unknown solver, got 'exakt'",
    "import p.toml --for mlx -o ./p.toml": "--output: is read here, and would be lost, got 'p.toml'",
    "export p.toml a.json --to mlx -o a.json": "--output: is read here, and would be lost, got 'a.json'",
    "explain p.toml a.json --count 2.5": "--count: must be a whole number, got '2.5'",
    "solve p.toml --bound 1 --budget 1KiB": "--bound, --budget: give a bound (least cost) or a budget (least damage)",
    "solve p.toml --budget 100kb": "--budget: may be bits or bytes, got 'kb' (write kbit or kB)",
    "solve p.toml --budget 100Mb": "--budget: may be bits or bytes, got 'Mb' (write Mbit or MB)",
    "solve p.toml --bound 1 --memory-limit 1gb": "--memory-limit: may be bits or bytes, got 'gb' (write Gbit or GB)",
    "solve p.toml --bound 1 --budget storage=1kb": "--budget storage: may be bits or bytes, got 'kb'",
    "frontier p.toml --exact 10kb": "--exact: may be bits or bytes, got 'kb'",
    "solve p.toml --bound 1 --bits 4.5 --budget storage=3KiB": "--bits: is a budget of storage, as is --budget",
    "solve p.toml --budget 1MiB --bits 4": "--budget, --bits: give one size, got '1MiB and 4'",
    "solve p.toml --bits 4.5 --minimize representational": "--bits: bits per weight are a size of the storage",
    "solve p.toml --bound 1 --time-limit 0": "--time-limit: must be positive, got 0.0",
    "solve p.toml --bound 1 --option states=1.5": "--option states: must be a whole number, got '1.5'",
    "solve p.toml --bound 1 --option states=0": "--option states: must be positive, got 0",
    "frontier p.toml --bound 0.1": "--bound: the frontier has every bound and size (--exact 0.1 solves there)",
    "frontier p.toml --bits 4.5": "--bits: the frontier has every bound and size (--exact 4.5bpw solves there)",
    "frontier p.toml --solver greedy": "--solver: goes with --exact",
    "frontier p.toml --against nope": "--against: unknown cost, got 'nope'",
    "frontier p.toml --against representational --solver greedy": "--solver: does not go with --against, got 'greedy'",
    "compare p.toml --network x": "--network: goes with --metric, got 'x'",
    "compare --metric impq --bound 1": "--bound: goes with strategies on a problem, not with --metric",
    "compare p.toml --metric impq": "PROBLEM: goes with strategies on a problem, not with --metric",
    "cost p.toml --input 3,3,3": "--input: goes with a network: a problem knows its shapes",
    "explain p.toml a.json --no-solve-again": "--no-solve-again: goes with a group",
    "explain p.toml a.json g0 --count 3": "--count: goes with the list of groups",
    "verify p.toml a.json --standalone c.py --json": "--json: does not go with --standalone",
    "import p.toml --accept-zeros": "--accept-zeros: goes with scores",
    "import p.toml p.toml": "a problem is one file, got 'p.toml'",
    "export p.toml a.json --to nope": "--to: unknown format, got 'nope'",
    "verify p.toml": "ALLOCATION is needed (impq-opt verify --help)",
    "completion tcsh": "SHELL: must be one of bash, zsh, fish, got 'tcsh'",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a problem and its allocation."""
    where = tmp_path_factory.mktemp("usage")
    problem = Problem.from_sensitivities([300, 200], [0.2, 0.1], names=["g0", "g1"])
    files.save_problem(problem, where / "p.toml")
    assert run(["solve", str(where / "p.toml"), "--bound", "0.1", "-o", str(where / "a.json")]) == 0
    return where


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    status = run(line.split())
    out, err = capsys.readouterr()
    assert (status, out) == (2, ""), err
    assert err.startswith(f"impq-opt: {WRONG[line]}"), err
    assert err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("solve p.toml --bits 4.5", 0, ""),
        ("solve p.toml --budget 4.5bpw", 0, ""),
        ("solve p.toml --bound 0.1 --bits 7", 0, ""),
        ("solve p.toml --bound 0.1 --budget storage=7bpw", 0, ""),
        ("solve p.toml --bound 0.01 --bits 1", 1, "nothing is feasible"),
        ("compare p.toml --bits 4.5 --solver greedy", 0, ""),
        ("frontier p.toml --exact 4.5bpw --exact 0.1", 0, ""),
        ("frontier p.toml --exact 1e-12", 1, ""),
        ("frontier p.toml --exact 0.5bpw", 1, ""),
        ("cost p.toml --bits 4.5 --bits 4.5bpw --bits 8,8", 0, ""),
        ("solve p.toml --budget 2000", 0, "--budget 2000 is taken as bits: 250 B; 2000B would be bytes"),
        ("solve p.toml --bound 0.1 --memory-limit 1000000000", 0, "is taken as bytes: 953.7 MiB"),
    ],
)
def test_sizes_and_statuses(
    line: str, status: int, told: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run(line.split()) == status
    out, err = capsys.readouterr()
    assert out
    assert told in err if told else err == ""


@pytest.mark.parametrize("size", ["4.5", "4.5bpw", " 4.5 bpw"])
def test_bits_of_weights_are_a_size(size: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", str(folder / "p.toml"), "--bits", size]) == 0
    assert "storage <= 2250 bit" in capsys.readouterr().out  # 4.5 * 500


def test_a_cost_without_a_unit_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = ["--minimize", "storage=1", "--minimize", "bit-operations=1"]
    capsys.readouterr()
    run(["compare", D, "--bound", "0.1", *sums, "--solver", "exact", "--solver", "greedy"])
    assert "cost (no unit)" in capsys.readouterr().out


def test_names_that_complete_options_are_those_there_are() -> None:
    pytest.importorskip("torch")
    from impq_opt import calibrate
    from impq_opt.cli import _choices
    from impq_opt.data import sources
    from impq_opt.measure import ESTIMATORS, METRICS
    from impq_opt.networks import FACTORIES, SHIPPED
    from impq_opt.quantize.methods import METHODS
    from impq_opt.rounds.policies import TABLE
    from impq_opt.rounds.recipes import recipe_names

    assert set(_choices.METRIC_NAMES) == set(METRICS)
    assert set(_choices.ESTIMATOR_NAMES) == set(ESTIMATORS)
    assert set(_choices.NETWORK_NAMES) == {*SHIPPED, *FACTORIES}
    assert set(_choices.METHOD_NAMES) == set(METHODS)
    assert set(_choices.CALIBRATION_NAMES) == set(calibrate.TABLE)
    assert set(_choices.POLICY_NAMES) >= {*TABLE} - {"by-solver"}
    assert set(_choices.RECIPE_NAMES) == set(recipe_names())
    assert set(_choices.DATA_NAMES) == set(sources.DATA_NAMES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["solve", "--solver", "gr"], "greedy"),
        (["solve", "resnet20"], D),
        (["export", "p.toml", "a.json", "--to", "tor"], "torchao"),
        (["measure", "--metric", "impq,h"], "impq,hawq"),
        (["measure", "small"], "small-cnn"),
        (["measure", "x", "--grid", "z"], "zero"),
        (["frontier", "--against", "bit"], "bit-operations"),
    ],
)
def test_values_of_options_complete(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["__complete", *words])
    assert expected in [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]


def test_options_that_are_listed_are_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in QUICK:
        capsys.readouterr()
        run(["solvers", name])
        for option in re.findall(r"^--option (\S+)", capsys.readouterr().out, re.MULTILINE):
            line = ["solve", str(folder / "p.toml"), "--bound", "0.1", "--solver", name, "--option", option]
            assert run(line) in (0, 1), (name, option)


@pytest.mark.parametrize(
    ("texts", "sizes", "named"),
    [
        (["flash=256KiB,ram=64KiB"], [], {"flash": "256KiB", "ram": "64KiB"}),
        (["100KiB,ram=64KiB"], ["100KiB"], {"ram": "64KiB"}),
        (["100KiB", "ram=64KiB"], ["100KiB"], {"ram": "64KiB"}),
        (["a,b=3,c=4"], [], {"a,b": "3", "c": "4"}),  # names may hold commas
        (["1,000"], ["1,000"], {}),
        (["storage=1,000"], [], {"storage": "1,000"}),
    ],
)
def test_budgets_with_commas_between(texts: list[str], sizes: list[str], named: dict[str, str]) -> None:
    assert parse_budgets(texts) == (sizes, named)


def test_budgets_of_one_option_are_those_of_several(tmp_path: Path) -> None:
    limits, found = ("storage=2.5bpw", "activation-memory=250KiB"), []
    for words in (["--budget", limits[0], "--budget", limits[1]], ["--budget", ",".join(limits)]):
        assert run(["solve", "resnet20-fashion-mnist", "--bound", "60", *words, "-o", str(tmp_path / "a.json")]) == 0
        found.append(json.loads((tmp_path / "a.json").read_text()))
    assert found[0]["bits"] == found[1]["bits"]
    assert found[0]["budgets"] == found[1]["budgets"]
    assert set(found[0]["budgets"]) == {"storage", "activation-memory"}
