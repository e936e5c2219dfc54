"""``impq-opt calibrate``: what it prints and packs, and what it refuses before the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measure_world import noise
from quantize_world import declared, net
from safetensors.torch import save_file

from impq_opt import solve
from impq_opt.calibrate.api import STEPS
from impq_opt.cli import run
from impq_opt.cli._common import parse_specs
from impq_opt.files import save_allocation, save_problem
from impq_opt.quantize import unpack

NETWORK = "from quantize_world import net as make\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network of the file ``net.py``, its problem, an allocation, and data with other statistics."""
    monkeypatch.chdir(tmp_path)
    network, x = net(), noise(60, 1, 8, 8)
    problem = declared(network, x[:4])[0].revise(weights_only=True)
    Path("net.py").write_text(NETWORK)
    save_file(network.state_dict(), "w.safetensors")
    save_problem(problem, Path("p.toml"))
    save_allocation(solve(problem, budget="2bpw"), Path("a.json"))
    np.savez("x.npz", images=x.numpy())
    return [
        "net.py:make",
        "p.toml",
        "a.json",
        "--weights",
        "w.safetensors",
        "--data",
        "x.npz",
        "--split",
        "all",
        "-o",
        "q.safetensors",
    ]


def test_the_table_and_the_record_say_what_was_done(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", *files, "--steps", "statistics", "--samples", "40", "--seed", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["samples"], record["held_out"]) == (40, 20)
    (step,) = record["steps"]
    assert step["name"] == "statistics" and step["outcome"] in ("kept", "refused")
    assert step["before"] == record["before"] and (step["after"] == record["after"])
    state = unpack("q.safetensors").state
    assert torch.equal(state["bn1.running_mean"], net().bn1.running_mean) is (step["outcome"] == "refused")
    assert run(["calibrate", *files]) == 0
    out = capsys.readouterr().out
    assert "calibrated on 40 samples" in out and "on 20 others" in out
    rows = [line.split()[:2] for line in out.splitlines()]
    assert [name for name, outcome in rows if outcome in ("kept", "undone", "refused")] == list(STEPS)


WRONG = {
    "did you mean 'statistics'": ["--steps", "statistic"],
    "unknown option of calibration 'statistics', got 'share'": ["--steps", "statistics:share=1"],
    "--samples: must be at least 1, got 0": ["--samples", "0"],
    "--output: is in no folder": ["-o", "nowhere/q.safetensors"],
    "--output: writes .safetensors": ["-o", "q.toml"],
}


def test_what_is_wrong_is_told_in_a_sentence(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for message, more in WRONG.items():
        assert run(["calibrate", *(files[:-2] if "-o" in more else files), *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not Path("q.safetensors").exists()


def test_options_go_on_behind_commas() -> None:
    assert parse_specs("statistics, gptq:damping=0.1,order=input,bias") == [
        "statistics",
        "gptq:damping=0.1,order=input",
        "bias",
    ]
