"""A name that is too long for the file system is that of no file, wherever one is asked for."""

from __future__ import annotations

import pytest

from impq_opt.cli import run

NAME = "9" * 400
ASKED = {
    "solve": ["solve", f"{NAME}.toml", "--bound", "0.1"],
    "solve without an ending": ["solve", NAME, "--bound", "0.1"],
    "verify": ["verify", "resnet20-fashion-mnist", f"{NAME}.json"],
    "import": ["import", f"{NAME}.csv", "--from", "csv", "-o", "p.toml"],
    "import of any kind": ["import", f"{NAME}.csv", "-o", "p.toml"],
    "report": ["report", f"{NAME}.json", "-o", "r.html"],
    "data": ["measure", "resnet20-fashion-mnist", "--data", NAME, "-o", "p.toml"],
    "arrays": ["measure", "resnet20-fashion-mnist", "--data", f"{NAME}.npz", "-o", "p.toml"],
    "weights": ["measure", "resnet20", "--weights", f"{NAME}.pt", "--data", "digits", "-o", "p.toml"],
    "network": ["measure", f"{NAME}.py:net", "--data", "digits", "-o", "p.toml"],
    "output": ["solve", "resnet20-fashion-mnist", "--bound", "0.1", "-o", f"{NAME}.json"],
    "recipe": ["rounds", "--recipe", f"{NAME}.toml", "-o", "run"],
    "folder": ["rounds", "resnet20-fashion-mnist", "--data", "digits", "-o", NAME],
}


@pytest.mark.parametrize("asked", ASKED)
def test_it_is_told_in_a_sentence(
    asked: str, capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert run(ASKED[asked]) == 2
    told = capsys.readouterr().err
    assert "9999" in told
    assert "Traceback" not in told
