"""Every command at every width, piped, in ASCII, on a stdout that fails: lines end in no space, words are whole."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impq_opt import GroupNames, Problem, files
from impq_opt.cli import COMMANDS, _streams, run

# {} is the folder with the problem, its allocation, and what goes with them.
SCREENS = [
    "solve {}/p.toml --bound 0.01",
    "solve {}/p.toml --bits 4.5",
    "solve {}/p.toml --bound 1e-9",
    "solve {}/k.toml --bound 0.001",
    "verify {}/p.toml {}/a.json",
    "explain {}/p.toml {}/a.json",
    "explain {}/p.toml {}/a.json layer1.conv",
    "frontier {}/p.toml --exact 0.01 --exact 4.5bpw",
    "cost {}/p.toml {}/a.json --bits 8,8 --bits 4.5",
    "import {}/p.toml",
    "audit {}/p.toml {}/p.csv --from csv",
    "problems",
    "problems {}/p.toml",
    "solvers",
    "solvers iterative",
    "methods",
    "methods twn",
    "formats",
    "formats onnxruntime",
    "encodings",
    "encodings q4_k",
    *(f"{command.name} --help" for command in COMMANDS),
    "--help",
    "--version",
]
# Looked at in one width.
SLOW = [
    "compare {}/p.toml --bound 0.01 --solver exact --solver noise-equalization --solver exhaustive --time-limit 5",
    "frontier {}/t.toml --against activation-memory --points 2 --bound 1",
]
WITH_TORCH = [
    "measure small-cnn --weights {}/w.safetensors --data digits --samples 64 -o {}/again.toml",
    "validate {}/m.toml {}/m.json --network small-cnn --weights {}/w.safetensors --data digits --uniform 1",
    "calibrate small-cnn {}/m.toml {}/m.json --weights {}/w.safetensors --data digits --samples 64 -o {}/c.safetensors",
    "quantize small-cnn --weights {}/w.safetensors --data digits --bits 3 --metric impq --samples 64 -o {}/quantized",
    "pack small-cnn {}/m.toml {}/m.json --weights {}/w.safetensors -o {}/packed.safetensors",
    "unpack {}/packed.safetensors -o {}/state.safetensors",
    "compile small-cnn {}/m.toml {}/m.json --weights {}/w.safetensors --data digits --samples 64 -o {}/code",
]
# What is for programs, and keeps its own lines.
DOCUMENTS = [
    "solve {}/p.toml --bound 0.01 --json",
    "graph {}/p.toml {}/a.json",
    "export {}/p.toml {}/a.json --to csv",
    "report {}/a.json -o {}/r.html --json",
    "completion bash",
]
WIDTHS: list[dict[str, str]] = [{"COLUMNS": "60"}, {"COLUMNS": "80"}, {"COLUMNS": "200"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read."""
    where = tmp_path_factory.mktemp("screens")
    rng = np.random.default_rng(11)
    problem = Problem.from_sensitivities(
        rng.integers(100, 20_000, 24),
        0.1 * np.exp(2 * rng.normal(size=24)),
        names=[f"layer{i}.{part}" for i in range(12) for part in ("conv", "relu")],
        kinds=["weight", "activation"] * 12,
        provenance={"description": "sensitivities that were drawn, of a network that nobody has trained", "seed": 11},
    )
    files.save_problem(problem, where / "p.toml")
    tiny = Problem.from_sensitivities([30, 20], [0.2, 0.1], kinds=["weight", "activation"])
    files.save_problem(tiny, where / "t.toml")
    names = GroupNames(("conv1", "conv2"), ((100,), (10, 20)))
    kernels = Problem.from_sensitivities(rng.integers(9, 99, 300), rng.random(300) / 100, names=names)
    files.save_problem(kernels, where / "k.toml")
    assert shown(f"solve {where}/p.toml --bound 0.01 -o {where}/a.json")[0] == 0
    bits = [f"{name},{5 - place % 2}\n" for place, name in enumerate(problem.names)]
    (where / "p.csv").write_text("group,bits\n" + "".join(bits))
    return where


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The folder, with a network, what was measured on it, and an allocation."""
    pytest.importorskip("torch")
    from measure_world import digits_network
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in digits_network().state_dict().items()}, folder / "w.safetensors")
    arguments = f"--weights {folder}/w.safetensors --data digits --samples 64 -o {folder}/m.toml"
    assert shown(f"measure small-cnn {arguments}")[0] == 0
    assert shown(f"solve {folder}/m.toml --bits 4 -o {folder}/m.json")[0] == 0
    return folder


def shown(line: str, encoding: str = "utf-8") -> tuple[int, str, str]:
    """Run a command here on a stream of its own: exit status, stdout, stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding, errors="replace", newline=""), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run(line.split())
        out.flush()
    data: Any = out.buffer
    return status, data.getvalue().decode(encoding), err.getvalue()


def words(text: str) -> set[str]:
    """Return the words of a screen; a time is another in every run, and a line of help goes on at a backslash."""
    return {word.rstrip(":") for word in text.split()} - {"\\", ""}


def looked_at(line: str, screens: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold one command's screens against what it prints in a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)
    status, piped, err = shown(line)
    assert status in (0, 1), err
    whole = words(piped)
    for variables in screens:
        monkeypatch.setenv("COLUMNS", variables["COLUMNS"])
        again, text, told = shown(line)
        assert again == status
        for row in (piped + text + told).split("\n"):
            assert row == row.rstrip(), row
        broken = {word for word in words(text) - whole if not re.match(r"[\d.]+", word)}
        assert not broken, (variables, broken)
        width = int(variables["COLUMNS"])
        assert all(len(row) <= width or len(row.split()) == 1 for row in text.split("\n")), (variables, text)
    monkeypatch.delenv("COLUMNS")
    _, text, told = shown(line, "ascii")
    assert "?" not in text.replace("which?", "").replace("hold?", "").replace("behind?", ""), text
    assert "Traceback" not in piped + text + err + told


@pytest.mark.parametrize("line", SCREENS)
def test_screens(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(line.replace("{}", str(folder)), WIDTHS, monkeypatch)


@pytest.mark.parametrize("line", SLOW, ids=lambda line: line.split()[0])
def test_slow_screens(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(line.replace("{}", str(folder)), WIDTHS[:1], monkeypatch)


@pytest.mark.parametrize("line", WITH_TORCH, ids=lambda line: line.split()[0])
def test_screens_of_networks(line: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(line.replace("{}", str(trained)), WIDTHS[:1], monkeypatch)


@pytest.mark.parametrize("line", DOCUMENTS)
def test_documents_are_the_same_at_every_width(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line.replace("{}", str(folder))
    status, piped, _ = shown(line)
    monkeypatch.setenv("COLUMNS", "60")
    again, text, _ = shown(line)
    times = r'"seconds": [\d.e-]+'
    assert (status, again) == (0, 0)
    assert re.sub(times, "", text) == re.sub(times, "", piped)
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


def test_every_command_is_looked_at() -> None:
    """All but those whose tables are made of what training gives, and dashboard, which serves: they have their own."""
    seen = {line.split()[0] for line in (*SCREENS, *SLOW, *WITH_TORCH, *DOCUMENTS) if "--help" not in line}
    assert {command.name for command in COMMANDS} - seen == {"baselines", "dashboard", "rounds", "train"}


def test_bars_differ_in_ascii(folder: Path) -> None:
    bars = {name: shown(f"solve {folder}/k.toml --bound 0.001", name)[1] for name in ("utf-8", "ascii")}
    rows = {name: re.findall(r"^conv\S+ +[\d.]+ (\S+)$", text, re.MULTILINE) for name, text in bars.items()}
    assert rows["ascii"]
    assert len(set(rows["ascii"])) == len(set(rows["utf-8"]))
    assert [len(row) for row in rows["ascii"]] == [len(row) for row in rows["utf-8"]]


@pytest.mark.parametrize("line", [*SCREENS, *DOCUMENTS])
@pytest.mark.parametrize("stdout", ["full", "closed"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_stdout_that_fails_is_told(line: str, stdout: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stdout that was closed has another file in its place, which is open for reading.
    flags = os.O_WRONLY if stdout == "full" else os.O_RDONLY
    descriptor = os.open("/dev/full" if stdout == "full" else os.devnull, flags)
    try:
        monkeypatch.setattr(sys, "stdout", _streams._wrapped(descriptor, None, "replace"))
        err = io.StringIO()
        with redirect_stderr(err):
            status = run(line.replace("{}", str(folder)).split())
            try:
                sys.stdout.flush()
            except _streams.StreamError as error:
                status = 1
                _streams.say(error)
        assert status == 1
        assert "stdout cannot be written" in err.getvalue()
        assert "Traceback" not in err.getvalue()
    finally:
        os.close(descriptor)
