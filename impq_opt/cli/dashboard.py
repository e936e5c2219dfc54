"""``impq-opt dashboard``: the runs, problems and allocations of a folder, in a browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from impq_opt.cli._common import JsonFlag
from impq_opt.cli._screen import console, print_json
from impq_opt.dashboard import Server

__all__ = ["dashboard"]


def dashboard(
    folder: Annotated[Path, Parameter(help="A folder with problems, allocations or runs, at any depth.")] = Path(),
    /,
    *,
    port: Annotated[int, Parameter(help="Listen on this port of 127.0.0.1; 0 takes one that is free.")] = 0,
    open: Annotated[bool, Parameter(help="Open the page in the browser.")] = True,  # noqa: A002 - the option's name
    json: JsonFlag = False,
) -> int:
    """Show the runs, problems and allocations of a folder in a browser: compare, move the bound, pin, solve again.

    Prints the address, which only this machine can open and which has a token in it, and serves until Ctrl-C. Nothing
    in the folder is written.
    """
    server = Server(folder, port)
    if json:
        print_json({"address": server.address, "folder": str(server.folder.root)})
    else:
        console().print(server.address)
    sys.stdout.flush()
    if open and _has_screen():
        threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
    server.run()
    return 0


def _has_screen() -> bool:
    """Whether a browser would get a window: one in the terminal would take it over."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
