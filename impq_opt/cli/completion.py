"""``impq-opt completion``: completion of commands and options for a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from impq_opt.errors import OptionError

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "fish")


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="The shell; yours where it is left out.")
    ] = None,
    /,
) -> int:
    """Print a script that completes commands and options; evaluate it when your shell starts."""
    from impq_opt.cli import make_app

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise OptionError("say which shell", value=name or None, hint=", ".join(_SHELLS))
    print(make_app().generate_completion(prog_name="impq-opt", shell=name).rstrip())  # type: ignore[arg-type]
    return 0
