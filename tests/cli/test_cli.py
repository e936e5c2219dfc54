"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import QUICK

import impq_opt
from impq_opt import Problem, files, problems
from impq_opt.cli import COMMANDS, run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")} | {
    "PYTHONPATH": str(ROOT)
}


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """Return a problem file with twelve layers, weights and activations."""
    rng = np.random.default_rng(11)
    problem = Problem.from_sensitivities(
        rng.integers(100, 20_000, 24),
        0.1 * np.exp(2 * rng.normal(size=24)),
        names=[f"layer{i}.{part}" for i in range(12) for part in ("conv", "relu")],
        kinds=["weight", "activation"] * 12,
        provenance={"description": "drawn", "seed": 11},
    )
    files.save_problem(problem, tmp_path / "layers.toml")
    return tmp_path / "layers.toml"


def call(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "impq_opt", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        cwd=cwd,
        check=False,
    )


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process: exit status, stdout, stderr."""
    status = run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one sentence on stderr of a call that must be refused with status 2."""
    status, out, err = ask(capsys, *arguments)
    assert status == 2, (out, err)
    assert out == ""
    assert err.startswith("impq-opt: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


# -- solve -------------------------------------------------------------------------------------------------------


def test_solve_prints_what_the_library_finds(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "solve", layers, "--bound", "0.01")
    answer = impq_opt.solve(files.load_problem(layers), bound=0.01)
    assert (status, err) == (0, "")
    weight, activation = answer.effective_bits
    for text in (
        "least storage with mismatch bound <= 0.01",
        "exact              optimal",
        f"{answer.damage:.6g} of 0.01 used",
        ", gap 0",
        f"weights {weight:.3f}, activations {activation:.3f}",
        f"compression ratio  {answer.compression_ratio:.2f}",
        "bits of weight groups by layer",
        "bits of activation groups: 8 in every layer",
    ):
        assert text in out
    for name, bits in list(zip(answer.problem.names, answer.bits.tolist(), strict=True))[::2]:
        assert f"{name:<12} {bits} {'█' * bits}{'·' * (8 - bits)}\n" in out


def test_solve_json_has_the_promised_keys(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "solve", layers, "--bound", "0.01", "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    problem = files.load_problem(layers)
    answer = impq_opt.solve(problem, bound=0.01)
    expected = {
        "status": "optimal",
        "objective": answer.objective,
        "lower_bound": answer.objective,
        "gap": 0.0,
        "damage": answer.damage,
        "bound": 0.01,
        "bits": dict(zip(problem.names, answer.bits.tolist(), strict=True)),
        "effective_bits": dict(zip(("weight", "activation"), answer.effective_bits, strict=True)),
        "compression_ratio": answer.compression_ratio,
        "solver": "exact",
        "seed": 0,
        "problem_digest": problem.digest,
        "version": impq_opt.__version__,
    }
    assert {key: document[key] for key in expected} == expected
    assert document["seconds"] > 0
    assert document["exact"]["damage"] == str(answer.exact_damage)


@pytest.mark.parametrize(
    ("arguments", "keywords", "revision"),
    [
        (["--budget", "20KiB"], {"budget": "20KiB"}, {}),
        (["--bound", "0.02", "--pin", "layer1.*=8"], {"bound": 0.02}, {"pins": {"layer1.*": 8}}),
        (["--bound", "0.02", "--pin", "layer1.conv=8", "--pin", "layer2.conv=7"], {"bound": 0.02},
         {"pins": {"layer1.conv": 8, "layer2.conv": 7}}),
        (["--bound", "0.02", "--tie", "layer1.conv,layer2.conv"], {"bound": 0.02},
         {"ties": [["layer1.conv", "layer2.conv"]]}),
        (["--bound", "0.02", "--bits", "2,4,8"], {"bound": 0.02}, {"bits": [2, 4, 8]}),
        (["--bound", "0.02", "--bits", "3:8"], {"bound": 0.02}, {"bits": range(3, 9)}),
        (["--bound", "0.02", "--minimize", "representational"], {"bound": 0.02, "minimize": "representational"}, {}),
        (
            ["--bound", "0.02", "--minimize", "storage=1", "--minimize", "activation-memory=0.5"],
            {"bound": 0.02, "minimize": {"storage": 1, "activation-memory": 0.5}},
            {},
        ),
        (
            ["--bound", "0.05", "--budget", "activation-memory=60KiB", "--solver", "milp"],
            {"bound": 0.05, "solver": "milp"},
            {"budgets": {"activation-memory": "60KiB"}},
        ),
        (["--bound", "0.02", "--solver", "uniform"], {"bound": 0.02, "solver": "uniform"}, {}),
    ],
)  # fmt: skip
def test_options_mean_what_the_library_means(
    arguments: Any, keywords: Any, revision: Any, layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "a.json"
    status, out, err = ask(capsys, "solve", layers, *arguments, "--json", "-o", output)
    expected = impq_opt.solve(files.load_problem(layers).revise(**revision), **keywords)
    document = json.loads(out)
    assert status == 0
    assert err == f"written to {output}\n"
    assert list(document["bits"].values()) == expected.bits.tolist()
    assert document["exact"]["cost"] == str(expected.exact_cost)
    assert json.loads(output.read_text()) == document
    assert ask(capsys, "verify", layers, output)[0] == 0


def test_solver_options_are_typed(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "solve", layers, "--bound", "0.1", "--option", "states=1000")[0] in (0, 1)
    assert "must be a whole number, got 'many'" in refused(
        capsys, "solve", layers, "--bound", "1", "--option", "states=many"
    )
    error = refused(capsys, "solve", layers, "--bound", "1", "--option", "sttes=3")
    assert "unknown option of solver 'exact', got 'sttes' (did you mean 'states'" in error


def test_an_unproved_answer_has_status_1(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(
        capsys, "solve", layers, "--bound", "0.01", "--solver", "exhaustive", "--time-limit", "0.05", "--json"
    )
    assert status == 1
    assert json.loads(out)["stop"] in ("time limit", "state limit")


def test_infeasible_has_status_1_and_says_why(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "solve", layers, "--bound", "1e-9")
    assert status == 1
    assert "exact: infeasible" in out
    smallest = sum(files.load_problem(layers).damage.sensitivity * 4.0**-8)
    shown = float(err.split("smallest reachable damage is ")[1].split(",")[0])
    assert smallest * (1 - 1e-5) < shown <= smallest  # rounded down
    assert ", above 1e-09; held there by" in err
    status, out, _ = ask(capsys, "solve", layers, "--bound", "1e-9", "--json")
    assert (status, json.loads(out)["status"], json.loads(out)["bits"]) == (1, "infeasible", None)
    status, _, err = ask(capsys, "solve", layers, "--budget", "1KiB")
    weights = files.load_problem(layers).sizes[::2].sum()
    assert status == 1
    shown = float(err.split("smallest reachable storage is ")[1].split(" KiB, above 1 KiB")[0])
    assert weights / 8192 * 0.999 < shown <= weights / 8192
    status, _, err = ask(capsys, "solve", layers, "--bound", "0.01", "--pin", "*=1")
    assert status == 1
    assert "held there by the pins" in err


def test_kernels_are_shown_as_distributions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    names = impq_opt.GroupNames(("conv1", "conv2"), ((100,), (10, 20)))
    problem = Problem.from_sensitivities(rng.integers(9, 99, 300), rng.random(300) / 100, names=names)
    files.save_problem(problem, tmp_path / "k.toml")
    _, out, _ = ask(capsys, "solve", tmp_path / "k.toml", "--bound", "0.001")
    answer = impq_opt.solve(problem, bound=0.001)
    mean = np.average(answer.bits[:100], weights=problem.sizes[:100])
    assert f"conv1 {mean:.2f} " in out
    assert "how many groups have 1 to 8" in out
    line = next(one for one in out.splitlines() if one.startswith("conv2"))
    used = set(answer.bits[100:].tolist())
    assert [c != "·" for c in line.split()[-1]] == [bits in used for bits in range(1, 9)]


# -- the other commands ------------------------------------------------------------------------------------------


def test_compare_lists_every_strategy(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "compare", layers, "--bound", "0.01", "--json", "--time-limit", "20")
    document = json.loads(out)
    assert (status, err) == (0, "")
    rows = {row["solver"]: row for row in document["rows"]}
    assert set(rows) == set(QUICK)
    truth = impq_opt.solve(files.load_problem(layers), bound=0.01)
    assert rows["exact"]["objective"] == document["best_bound"] == truth.objective
    for row in rows.values():
        if "objective" in row:
            assert row["objective"] >= truth.objective
            assert row["gap"] == pytest.approx(1 - truth.objective / row["objective"])
            assert row["damage"] <= 0.01
        else:
            assert row["reason"]
    assert rows["milp"]["groups_changed"] is not None


def test_compare_says_who_cannot_and_why(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    goals = ["--bound", "0.05", "--budget", "activation-memory=60KiB"]
    status, out, _ = ask(capsys, "compare", layers, *goals, "--solver", "lagrangian", "--solver", "milp")
    assert status == 0
    assert "lagrangian: solver 'lagrangian' does not handle several budgets; these do:" in out
    status, out, _ = ask(capsys, "compare", layers, "--bound", "1e-9")
    assert status == 1
    assert "all strategies: the smallest reachable damage is" in out


@pytest.mark.parametrize("solver", ["milp", "ilp"])
def test_a_strategy_that_ignores_its_time_limit_is_ended(
    solver: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """HiGHS and CBC look at the clock between steps; the first step on 20,000 groups takes longer than this limit."""
    rng = np.random.default_rng(0)
    problem = Problem.from_sensitivities(
        rng.integers(1, 10**6, 20_000), np.exp(2 * rng.normal(size=20_000)), bits=range(1, 13)
    )
    files.save_problem(problem, tmp_path / "large.toml")
    goals = ["--bound", "1", "--solver", solver, "--solver", "uniform", "--time-limit", "0.2"]
    status, out, _ = ask(capsys, "compare", tmp_path / "large.toml", *goals, "--json")
    assert status == 0
    row = json.loads(out)["rows"][0]
    assert row["solver"] == solver
    if "objective" not in row:
        assert "over its limit of 0.2 s" in row["reason"] or "time limit" in row["reason"]
    assert json.loads(out)["rows"][1]["objective"] > 0


def test_verify_finds_a_forged_file(layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    ask(capsys, "solve", layers, "--bound", "0.01", "-o", output)
    status, out, _ = ask(capsys, "verify", layers, output)
    assert status == 0
    assert "proved   status: optimal" in out
    assert "Everything it states is proved here." in out
    document = json.loads(output.read_text())
    bits = document["bits"]
    bits["layer0.conv"] = 9 - bits["layer0.conv"] if bits["layer0.conv"] != 4 else 3
    output.write_text(json.dumps(document))
    status, out, _ = ask(capsys, "verify", layers, output)
    assert status == 1
    assert "wrong    cost" in out
    assert "not what it says" in out
    status, out, _ = ask(capsys, "verify", layers, output, "--json")
    assert (status, json.loads(out)["ok"]) == (1, False)


def test_verify_tells_claims_from_proofs(layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    ask(capsys, "solve", layers, "--bound", "0.01", "-o", output)
    status, out, _ = ask(capsys, "verify", layers, output, "--states", "3")
    assert status == 1
    assert "claimed  status: optimal is claimed by the solver, not proved again here" in out
    assert "Nothing is wrong; not everything is proved here." in out


def test_problems_and_solvers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "solvers")
    assert status == 0
    assert all(f"\n{name} " in out for name in impq_opt.solvers.solver_names())
    status, out, _ = ask(capsys, "solvers", "--json")
    assert [one["name"] for one in json.loads(out)] == list(impq_opt.solvers.solver_names())
    status, out, _ = ask(capsys, "problems", "--json")
    assert [one["name"] for one in json.loads(out)] == list(problems.names())
    for one in json.loads(out):
        assert one["provenance"]
    status, out, _ = ask(capsys, "problems")
    assert status == 0
    assert all(name in out for name in problems.names())


def test_a_problem_file_is_described(layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "problems", layers)
    assert status == 0
    assert "weight groups      12" in out
    assert "drawn" in out


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "needs a bound or a budget"),
        (["--bound", "0"], "--bound: must be positive, got 0.0"),
        (["--bound", "-1"], "--bound: must be positive, got -1.0"),
        (["--bound", "nan"], "--bound: must be finite, got nan"),
        (["--bound", "inf"], "--bound: must be finite, got inf"),
        (["--bound", "x"], "--bound: must be a number, got 'x'"),
        (["--bond", "1"], "Unknown option: --bond. Did you mean --bound?"),
        (["--bound", "1", "--budget", "1KiB"], "give a bound (least cost) or a budget (least damage), not both"),
        (["--budget", "much"], "--budget: must be a non-negative number with an optional unit, got 'much'"),
        (["--budget", "1e400KiB"], "--budget: is too large, got '1e400KiB' (at most 1e+100 bit)"),
        (["--budget", "1 KiX"], "unknown unit for a quantity in bit, got 'KiX'"),
        (["--budget", "1KiB", "--budget", "2KiB"], "--budget: more than one plain budget"),
        (["--budget", "storge=1KiB"], "unknown cost, got 'storge' (did you mean 'storage'"),
        (["--bound", "1", "--minimize", "storge"], "unknown cost, got 'storge' (did you mean 'storage'"),
        (["--bound", "1", "--minimize", "storage=x"], "--minimize: a weight must be a number"),
        (["--bound", "1", "--minimize", "storage=nan"], "--minimize storage: must be finite, got nan"),
        (["--bound", "1", "--minimize", "storage=-1"], "--minimize storage: must be positive, got -1.0"),
        (["--bound", "1", "--solver", "exakt"], "solver: unknown solver, got 'exakt' (did you mean 'exact'"),
        (["--bound", "1", "--pin", "layer1.conv"], "--pin: must be NAME=VALUE, got 'layer1.conv'"),
        (["--bound", "1", "--pin", "layer1.cnv=8"], "no such group, got 'layer1.cnv' (did you mean 'layer1.conv'"),
        (["--bound", "1", "--pin", "layer1.conv=9"], "that is not among its candidates, got '9'"),
        (["--bound", "1", "--pin", "layer1.conv=8", "--pin", "layer1.conv=7"], "--pin layer1.conv: is given twice"),
        (["--bound", "1", "--pin", "layer1.conv=8", "--pin", "layer1.*=7"], "is pinned twice"),
        (["--bound", "1", "--tie", "layer1.conv,"], "--tie: must be names with commas between them"),
        (["--bound", "1", "--tie", "layer1.conv,layer1.con"], "no such group, got 'layer1.con'"),
        (
            ["--bound", "1", "--tie", "layer1.conv,layer2.conv", "--pin", "layer1.conv=8", "--pin", "layer2.conv=7"],
            "tied groups are pinned to different bits",
        ),
        (["--bound", "1", "--bits", "8:1"], "--bits: must be a range or a list of precisions, got '8:1'"),
        (["--bound", "1", "--bits", "9,10"], "no candidate is left"),
        (["--bound", "1", "--time-limit", "0"], "--time-limit: must be positive"),
        (["--bound", "1", "--time-limit", "nan"], "--time-limit: must be positive"),
        (["--bound", "1", "--memory-limit", "0"], "--memory-limit: must be positive"),
        (["--bound", "1", "--memory-limit", "lots"], "--memory-limit: must be a non-negative number"),
        (["--bound", "1", "--option", "states"], "--option: must be NAME=VALUE"),
        (["--bound", "1", "-o", "/dev/null/x.json"], "--output: /dev/null/x.json: cannot be written"),
        (["--bound", "1", "-o", "/"], "--output: /: is a folder, not a file"),
        (["--bound", "0.01", "--solver", "lagrangian", "--budget", "storage=1MiB"], "does not handle several budgets"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    arguments: Any, expected: str, layers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, "solve", layers, *arguments)


NASTY = [
    *(
        "",
        " ",
        "0",
        "-1",
        "1",
        "2.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "1e99999999",
        "x",
        "a=b",
        "=",
        "=1",
        "a=",
    ),
    *(",", "layer0.conv=8", "layer*=3", "[", "*", "layer0.conv,layer1.conv", "1:8", "8:1", ":", "1:99999999999", "2,2"),
    *("storage", "storage=1KiB", "storage=1e-9bit", "1KiB", "\\x00", "é", "9" * 24, "layer0.conv[0]", "9" * 5000),
]
OPTIONS = ["--bound", "--budget", "--minimize", "--pin", "--tie", "--bits", "--solver", "--option", "--time-limit",
           "--memory-limit", "--seed"]  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_no_value_of_any_option_ends_in_a_traceback(seed: int, layers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    statuses = set()
    for _ in range(100):
        arguments = ["solve", layers, "--bound", "0.1"] if rng.random() < 0.7 else ["solve", layers]
        for option in rng.sample(OPTIONS, rng.randint(1, 2)):
            arguments += [option, rng.choice(NASTY)]
        status, _, err = ask(capsys, *arguments)  # anything but an answer or a refusal raises here
        assert status in (0, 1, 2), arguments
        assert "Traceback" not in err
        assert (err.count("\n") == 1) if status == 2 else True, (arguments, err)
        statuses.add(status)
    assert 2 in statuses
    assert len(statuses) > 1


def test_counts_must_be_positive(layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ask(capsys, "solve", layers, "--bound", "0.1", "-o", tmp_path / "a.json")
    assert "--count: must be positive" in refused(capsys, "explain", layers, tmp_path / "a.json", "--count", "0")
    assert "--states: must be positive" in refused(capsys, "verify", layers, tmp_path / "a.json", "--states", "0")


def test_unknown_names_are_told_with_near_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no command 'slove' (did you mean 'solve'" in refused(capsys, "slove")
    assert "no such problem in the gallery and no such file, got 'resnet'" in refused(
        capsys, "solve", "resnet", "--bound", "1"
    )
    assert "there is no such file" in refused(capsys, "solve", tmp_path / "no.toml", "--bound", "1")
    assert "is a folder" in refused(capsys, "solve", tmp_path, "--bound", "1")
    assert "unknown solver, got 'exat'" in refused(capsys, "solvers", "exat")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\x89PNG\r\n", b"[a]\nb=1", b"{}", b"[" * 5000])
@pytest.mark.parametrize("suffix", [".toml", ".json", ".safetensors", ""])
def test_foreign_files_are_told(
    content: Any, suffix: str, layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    refused(capsys, "solve", path, "--bound", "1")
    refused(capsys, "verify", layers, path)
    refused(capsys, "explain", layers, path)


def test_an_allocation_of_another_problem_is_told(
    layers: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ask(capsys, "solve", layers, "--bound", "0.1", "-o", tmp_path / "a.json")
    layers.write_text(layers.read_text().replace("size = ", "size = 1", 1))
    assert "a.json: problem_digest: answers another problem" in refused(capsys, "verify", layers, tmp_path / "a.json")


# -- as a process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help_has_an_example(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, command, "--help")
    assert status == 0
    assert f"Example: impq-opt {command} " in out
    assert f"Usage: impq-opt {command}" in out


def test_start_up_loads_nothing_heavy() -> None:
    code = """
import sys
from impq_opt.cli import run
assert run(["--help"]) == 0
heavy = ("torch.", "scipy.", "matplotlib.", "pulp.", "networkx.", "impq_opt.solvers.", "impq_opt.measure.")
loaded = [name for name in sys.modules if name.startswith(heavy)]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr


def test_solving_loads_no_torch(layers: Any) -> None:
    code = f"""
import sys
from impq_opt.cli import run
assert run(["solve", {str(layers)!r}, "--bound", "0.1"]) == 0
loaded = [name for name in ("torch", "matplotlib", "pulp") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr


def test_output_is_plain_when_piped_and_without_color(layers: Any, tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    assert "\x1b" not in call("solve", layers, "--bound", "0.1", "-o", output).stdout
    assert "\x1b" not in call("verify", layers, output).stdout
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        main, other = pty.openpty()
        environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"} | variables
        done = subprocess.run(
            [sys.executable, "-m", "impq_opt", "verify", str(layers), str(output)],
            stdout=other,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
        text = os.read(main, 1 << 16).decode()
        os.close(main)
        os.close(other)
        assert done.returncode == 0
        assert ("\x1b[32m" in text) is coloured


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["solve", "compare"])
def test_tables_fit_the_terminal(command: str, width: int, layers: Any) -> None:
    done = call(command, layers, "--bound", "0.01", COLUMNS=str(width))
    assert done.returncode == 0
    table = [line for line in done.stdout.splitlines() if not line.startswith(str(layers))]
    assert max(map(len, table)) <= width
    assert any("noise-equalization" in line for line in table) is (command == "compare")


def test_ascii_terminals_get_an_answer(layers: Any) -> None:
    done = call("solve", layers, "--bound", "0.01", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "optimal" in done.stdout


def test_what_native_code_prints_stays_out_of_stdout() -> None:
    """HiGHS and others write to the C library's stdout, whose buffer comes out when the process ends."""
    code = """
import ctypes
from impq_opt.cli._progress import progress
from impq_opt.cli._screen import print_json
with progress("working"):
    ctypes.CDLL(None).puts(b"native noise")
print_json({"a": 1})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "noise" not in done.stdout + done.stderr
    assert done.stdout.endswith('{\n  "a": 1\n}\n')


def test_a_reader_that_goes_away_is_no_error(layers: Any) -> None:
    command = f"{sys.executable} -m impq_opt solve {layers} --bound 0.01 --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.stderr == ""


def test_killed_or_interrupted_leaves_no_half_written_file(layers: Any, tmp_path: Path) -> None:
    output = tmp_path / "out" / "a.json"
    output.parent.mkdir()
    rng = random.Random(3)
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "impq_opt", "solve", str(layers), "--bound", "0.01", "-o", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        time.sleep(0.2 + rng.random() * 0.4)
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGINT)
        _, err = process.communicate()
        if process.returncode == 130:
            # the signal may come after the file was written and told of
            assert err.endswith("impq-opt: interrupted\n")
            assert "Traceback" not in err
        if output.exists():
            files.load_allocation(output, files.load_problem(layers))


def test_the_default_problem_is_solved_and_verified(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if problems.DEFAULT not in problems.names():
        pytest.skip(f"{problems.DEFAULT} is not in the gallery yet")
    output = tmp_path / "a.json"
    status, out, _ = ask(capsys, "solve", "--bound", "0.01", "-o", output)
    assert status == 0
    assert "optimal" in out
    assert ask(capsys, "verify", problems.DEFAULT, output)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["report", "resnet20-fashion-mnist", "more", "-o", "r.html"],
            "the command takes no further argument, got 'more'",
        ),
        (["frontier", "--exact", "nan"], "--exact: must be finite, got nan"),
        (["frontier", "--exact", "0"], "--exact: must be positive, got 0.0"),
        (["frontier", "--points", "4"], "--points: goes with --against, got 4"),
        (
            ["cost", "resnet20-fashion-mnist", "--bits", "nan,8"],
            "--bits: must be the bits of weights and of activations",
        ),
    ],
)
def test_wrong_input_is_a_matter_of_use(
    arguments: Any, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = ask(capsys, *arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert not list(tmp_path.iterdir())


def test_a_table_that_nobody_reads_to_its_end() -> None:
    command = f"{sys.executable} -m impq_opt problems | head -n 0; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
