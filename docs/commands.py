"""Write the page of all commands and options: ``python docs/commands.py`` from the repository's root."""

from __future__ import annotations

import re
from pathlib import Path

from impq_opt.cli import COMMANDS, make_app

PAGE = Path(__file__).with_name("commands.md")
_HEAD = """# All commands and options

Written by `python docs/commands.py` from what `impq-opt COMMAND --help` says. {doc}`howto/shell` has what they share:
output, exit status, progress, completion.

"""
# A section of what cyclopts writes: the name, the usage, and the rest.
_SECTION = r"(\S+)\s+```console\n(.*?)\n```\s+(.*)"


def page() -> str:
    """Return the page: every command with its example, arguments and options, in the order of the help."""
    text = make_app().generate_docs(output_format="markdown", recursive=True)
    _, *sections = re.split(r"^## impq-opt ", text, flags=re.MULTILINE)
    parts = [_HEAD]
    for command, section in zip(COMMANDS, sections, strict=True):
        name, usage, described = re.match(_SECTION, section, re.DOTALL).groups()  # type: ignore[union-attr]
        assert name == command.name
        parts.append(f"## {name}\n\n```text\n{usage}\n```\n\n{described.strip().replace(' *[default: []]*', '')}\n\n")
        parts.append(f"Example:\n\n```text\n{command.example}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
