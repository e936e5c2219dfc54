"""Shell completion completes: asked of a real bash."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from impq_opt.cli import COMMANDS, run


def script(shell: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(["completion", shell]) == 0
    return capsys.readouterr().out


def complete(source: Any, words: Any) -> list[Any]:
    """Return what bash offers for the last of ``words``."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"""
    COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}"; COMP_POINT=${{#COMP_LINE}}
    $(complete -p impq-opt | sed 's/.*-F \\([^ ]*\\).*/\\1/') impq-opt '{words[-1]}' '{words[-2]}'
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", source + ask], capture_output=True, text=True, check=True)
    return [word.strip() for word in done.stdout.split()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    source = script("bash", capsys)
    capsys.readouterr()
    assert set(complete(source, ["impq-opt", ""])) >= {command.name for command in COMMANDS}
    assert "frontier" in complete(source, ["impq-opt", "fro"])
    assert "solve" not in complete(source, ["impq-opt", "fro"])
    assert "--bound" in complete(source, ["impq-opt", "solve", "--bo"])
    assert "--exact" in complete(source, ["impq-opt", "frontier", "--"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_printed_whole(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert all(command.name in text for command in COMMANDS)
    if shell != "bash" and shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_an_unknown_shell_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run(["completion"]) == 2
    assert "say which shell, got 'tcsh' (bash, zsh, fish)" in capsys.readouterr().err
