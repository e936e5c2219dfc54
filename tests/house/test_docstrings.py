"""Public functions say what they raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from imports import MODULES


def raising(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the public functions and methods that raise something themselves, by their dotted names."""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from raising(node, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and any(own_raises(node)):
            yield f"{inside}{node.name}", node


def own_raises(node: ast.AST) -> Iterator[ast.Raise]:
    """Yield what a function raises, but for functions inside it and for members that a subclass has to bring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            raised = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            if ast.unparse(raised) not in ("NotImplementedError", "AttributeError", "StopIteration", "KeyError"):
                yield child
        yield from own_raises(child)


def test_public_functions_say_what_they_raise() -> None:
    """Those without a docstring have that of the class they derive from; those of ``cli`` are help texts."""
    silent = []
    for name, file in MODULES.items():
        if name.startswith(("cli", "judge.standalone")):
            continue
        for function, node in raising(ast.parse(file.read_text(encoding="utf-8"))):
            told = ast.get_docstring(node)
            if told is not None and "aise" not in told:
                silent.append(f"{name}.{function}")
    assert not silent, silent
