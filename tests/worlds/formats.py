"""Formats of other tools, for tests that know what each of them can do beyond what all can."""

from __future__ import annotations

from typing import Any

from impq_opt.exchange import make_format


def format_named(name: str, **options: Any) -> Any:
    """Return the format of a name, as what it is and not as what all formats are."""
    return make_format(name, **options)
