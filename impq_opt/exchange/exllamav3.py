"""exllamav3: the measurement.json that its optimizer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from impq_opt.costs import TableCost
from impq_opt.damage import DamageTable
from impq_opt.errors import FileError
from impq_opt.exchange.base import Reader, field, shifted
from impq_opt.groups import GroupNames, gather_sets
from impq_opt.problem import Problem

__all__ = ["ExLlamaV3"]


@dataclass(frozen=True)
class ExLlamaV3(Reader):
    """Groups of layers, each with its base model's version and one candidate a further model.

    Cost is the number of bits more than the base model's, damage the KL divergence more than the base model's; each
    group's smallest is set to 0, since a divergence can fall, and the sum is kept in the provenance.
    """

    name: ClassVar[str] = "exllamav3"
    summary: ClassVar[str] = "measurement.json of exllamav3's measure step"
    source: ClassVar[str] = "https://github.com/turboderp-org/exllamav3 (conversion/measure_model.py)"

    def problem(self, scores: Any) -> Problem:
        groups = field(scores, "groups", list, self.name)
        if not groups:
            raise FileError("has no groups", where=self.name)
        names, layers, costs, damages = [], [], [], []
        for place, group in enumerate(groups):
            where = f"{self.name}: groups[{place}]"
            members = field(group, "layers", list, where)
            candidates = field(group, "candidates", list, where)
            names.append(" + ".join(map(str, members)) or where)
            layers.append(str(members[0]) if len(members) == 1 else names[-1])
            bits = [field(c, "dbits", (int, float), f"{where}.candidates[{k}]") for k, c in enumerate(candidates)]
            kld = [field(c, "dkld", (int, float), f"{where}.candidates[{k}]") for k, c in enumerate(candidates)]
            costs.append([0, *bits])
            damages.append([0.0, *kld])
        widths = _models(scores, max(map(len, costs)))
        formats = [tuple(f"model {k}" for k in range(len(row))) for row in costs]
        damage, offset = shifted(_table(damages))
        return Problem(
            names=GroupNames.explicit(names, layers),
            candidates=gather_sets([tuple(widths[: len(row)]) for row in costs], formats),
            damage=DamageTable(damage),
            sizes=np.ones(len(groups), dtype=np.int64),
            costs=(TableCost.from_array(_whole(costs), name="extra-bits", unit="bit", source="bits above the base"),),
            objective={"extra-bits": 1},
            metric="exllamav3",
            damage_unit="KL divergence above the best of each group",
            provenance={"damage_offset": offset, "base_kld": float(scores.get("base_kld", 0.0))},
        )


def _models(scores: Any, count: int) -> list[float]:
    """Return the bits per weight of the base model and of the others; their numbers where the file has none."""
    listed = [scores.get("base", {}), *scores.get("alts", [])]
    found = [float(model["bpw"]) for model in listed if isinstance(model, dict) and "bpw" in model]
    return found if len(found) >= count else [float(k) for k in range(count)]


def _table(rows: list[list[float]]) -> Any:
    width = max(map(len, rows))
    return np.array([row + [row[-1]] * (width - len(row)) for row in rows], dtype=np.float64)


def _whole(rows: list[list[Any]]) -> Any:
    table = _table(rows)
    return table.astype(np.int64) if (table == np.rint(table)).all() else table
