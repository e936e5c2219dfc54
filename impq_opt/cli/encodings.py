"""``impq-opt encodings``: how engines store weights, with true bits."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from impq_opt.cli._choices import ENCODINGS
from impq_opt.cli._common import JsonFlag
from impq_opt.cli._screen import console, grid, print_json
from impq_opt.encodings import Encoding, Family, encoding, encoding_names, family_class, family_names

__all__ = ["encodings"]


def encodings(
    name: Annotated[str | None, ENCODINGS, Parameter(help="Show one encoding.")] = None,
    /,
    *,
    json: JsonFlag = False,
) -> int:
    """List how engines store weights: exact bits of a weight with scales, and the rows that can be held.

    A row of a matrix is a whole number of blocks: rows of 576 weights have no k-quants of llama.cpp, whose blocks are
    256 long.
    """
    kinds = {family: family_class(family) for family in family_names()}
    told = {one: _record(encoding(one), kinds[family]) for family in kinds for one in encoding_names(family)}
    if name is not None:
        record = told[encoding(name).name]
        if json:
            print_json(record)
            return 0
        table = grid("", "", header=False)
        for key, value in record.items():
            table.add_row(key.replace("_", " "), str(value) or "-")
        console().print(table)
        return 0
    if json:
        print_json(list(told.values()))
        return 0
    table = grid("name", ">bits", ">block", "family", "needs")
    for record in told.values():
        needs = "importance matrix" if record["guided"] else record["package"]
        table.add_row(
            record["name"], str(record["bits"]).removesuffix(".0"), str(record["block"]), record["family"], needs or "-"
        )
    out = console()
    out.print(table)
    out.print()
    for kind in kinds.values():
        out.print(f"{kind.name}: {kind.summary}")
    return 0


def _record(one: Encoding, kind: type[Family]) -> dict[str, Any]:
    return {
        "name": one.name,
        "bits": float(one.bits),
        "exact_bits": str(one.bits),
        "block": one.block,
        "block_bits": one.block_bits,
        "row_bits": one.row_bits,
        "matrix_bits": one.matrix_bits,
        "guided": bool(getattr(one, "guided", False)),
        "family": kind.name,
        "package": kind.package if one.block > 1 else "",  # floating point needs none
        "source": kind.source,
    }
