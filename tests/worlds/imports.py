"""What every module of the package imports, annotations and late imports too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())


def modules() -> dict[str, Path]:
    """Return every module of the package by its name below ``impq_opt``; the package itself is ``__init__``."""
    found = {}
    for folder in ("impq_opt", "solvers", "problems"):
        for file in (ROOT / folder).rglob("*.py"):  # does not follow the two links
            parts = file.relative_to(ROOT / "impq_opt" if folder == "impq_opt" else ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            found[name] = file
    return found


MODULES = modules()


def imported(file: Path) -> Iterator[str]:
    """Yield the modules of the package that ``file`` imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            base = (node.module or "").split(".")
            if base[0] == "impq_opt":
                for alias in node.names:
                    name = ".".join([*base[1:], alias.name])
                    yield name if name in MODULES else ".".join(base[1:]) or "__init__"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "impq_opt":
                    yield ".".join(alias.name.split(".")[1:]) or "__init__"


IMPORTS = {name: {one for one in imported(file) if one != name} for name, file in MODULES.items()}
