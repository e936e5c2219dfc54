"""The page about the files names every field of the schemas, with its type and what is taken where it is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from impq_opt.files import allocation_record as answers
from impq_opt.files import problem_record as questions
from impq_opt.files.costs import CostRecord, cost_array_types

PAGE = Path(__file__).parents[2] / "docs" / "api" / "files.md"
SECTION = re.compile(r"^### `([^`\n]+)`[^\n]*\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)

RECORDS: dict[str, Any] = {
    "problem.toml": questions.ProblemRecord,
    "[[groups]]": questions.GroupRecord,
    "[names]": questions.NamesRecord,
    "[[candidates]]": questions.CandidatesRecord,
    "[[costs]]": CostRecord,
    "[[stays]]": questions.StaysRecord,
    "[arrays]": questions.ArraysRecord,
    "allocation.json": answers.AllocationRecord,
    **{name: record for name, record in answers.NESTED.items() if name != "enumeration"},
    "certificate.enumeration": answers.NESTED["enumeration"],
}

# One of a type, and several.
NAMES: dict[type[inspect.Type], tuple[str, str]] = {
    inspect.IntType: ("whole number", "whole numbers"),
    inspect.FloatType: ("number", "numbers"),
    inspect.StrType: ("text", "texts"),
    inspect.BoolType: ("true or false", "true or false"),
    inspect.AnyType: ("anything", "anything"),
    inspect.StructType: ("table", "tables"),
}


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table, the name of the field without its marks."""
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def in_words(kind: inspect.Type, many: bool = False) -> str:
    """Return a type as the page says it, or ``many`` of it."""
    if isinstance(kind, inspect.UnionType):
        parts = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        if any(isinstance(part, inspect.FloatType) for part in parts):  # which holds whole ones
            parts = [part for part in parts if not isinstance(part, inspect.IntType)]
        return " or ".join(in_words(part, many) for part in parts)
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"`{json.dumps(value)}`" for value in kind.values)
    if isinstance(kind, inspect.ListType):
        return f"{'lists' if many else 'list'} of {in_words(kind.item_type, True)}"
    if isinstance(kind, inspect.DictType):
        return f"{'tables' if many else 'table'} of {in_words(kind.value_type, True)}"
    if isinstance(kind, inspect.TupleType):
        return f"({', '.join(map(in_words, kind.item_types))})"
    return NAMES[type(kind)][many]


def default(field: inspect.Field) -> str:
    """Return what is taken where a field is left out, as the page says it."""
    if field.required:
        return "needed"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "none" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("name", RECORDS)
def test_a_table_has_every_field_of_the_schema(name: str) -> None:
    told = inspect.type_info(RECORDS[name])
    assert isinstance(told, inspect.StructType)
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    table = rows(sections[name])
    wanted = [(f"`{field.name}`", in_words(field.type), default(field)) for field in told.fields]
    assert [(field, kind, left_out) for field, kind, _, left_out, _ in table] == wanted
    assert all(unit and meaning for _, _, unit, _, meaning in table)


def test_no_section_is_about_something_else() -> None:
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    assert set(sections) == {*RECORDS, "problem.safetensors"}


def test_a_table_has_every_array() -> None:
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    table = rows(sections["problem.safetensors"])
    known = questions.ARRAYS | cost_array_types("NAME")
    assert {name.strip("`"): kind for name, kind, *_ in table} == {
        name: f"{kind}, {dimensions}-D" for name, (kind, dimensions) in known.items()
    }
