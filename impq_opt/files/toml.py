"""TOML as people read it: lists on one line where they fit."""

from __future__ import annotations

__all__ = ["folded"]


def folded(text: str) -> str:
    """Put lists that tomli_w writes one item a line on lines of up to 120 characters."""
    lines: list[str] = []
    open_: list[list[str]] = []
    for line in text.removesuffix("\n").split("\n"):
        # Strings never span lines here, so a line that ends in "[" opens a list and one that begins with "]" closes it.
        item = line.strip()
        if open_ and item.startswith("]"):
            part = open_.pop()
            whole = part[0] + " ".join(part[1:]).removesuffix(",") + item
            if item.endswith("["):  # a table inside a list goes on with its next list
                open_.append([whole])
            elif open_:
                open_[-1].append(whole)
            else:
                lines += [whole] if len(whole) <= 120 else _filled([*part, item])
        elif item.endswith("["):
            open_.append([item])
        elif open_:
            open_[-1].append(item)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _filled(part: list[str]) -> list[str]:
    """Break a list between its items; tables get a line each."""
    lines = ["    "]
    for item in part[1:-1]:
        if lines[-1].strip() and (item.startswith("{") or len(lines[-1]) + len(item) >= 120):
            lines.append("    ")
        lines[-1] += item if not lines[-1].strip() else " " + item
    return [part[0], *lines, part[-1]]
