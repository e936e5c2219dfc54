"""exllamav3: the measurement.json that its optimizer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np

from impq_opt.costs import TableCost
from impq_opt.errors import FileError
from impq_opt.exchange.base import Reader, shifted, table, typed, whole
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.candidates import gather_sets
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.names import GroupNames
from impq_opt.problem.problem import Problem

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
        measured = typed(scores, _Measurement, self.name)
        if not measured.groups:
            raise FileError("has no groups", where=self.name)
        names = [" + ".join(group.layers) or f"groups[{k}]" for k, group in enumerate(measured.groups)]
        layers = [
            group.layers[0] if len(group.layers) == 1 else name
            for group, name in zip(measured.groups, names, strict=True)
        ]
        costs = [[0.0, *(candidate.dbits for candidate in group.candidates)] for group in measured.groups]
        damage, offset = shifted(
            table([[0.0, *(candidate.dkld for candidate in g.candidates)] for g in measured.groups], "dkld")
        )
        models = [model.bpw for model in (measured.base, *measured.alts) if model.bpw is not None]
        most = max(map(len, costs))
        widths = models if len(models) >= most else [float(k) for k in range(most)]
        problem = Problem(
            names=GroupNames.explicit(names, layers),
            candidates=gather_sets(
                [tuple(widths[: len(row)]) for row in costs],
                [tuple(f"model {k}" for k in range(len(row))) for row in costs],
            ),
            damage=DamageTable(damage),
            sizes=np.ones(len(costs), dtype=np.int64),
            costs=(
                TableCost.from_array(
                    whole(table(costs, "dbits")), name="extra-bits", unit="bit", source="bits above the base model"
                ),
            ),
            objective={"extra-bits": 1},
            metric="exllamav3",
            damage_unit="KL divergence above the best of each group",
            provenance={"damage_offset": offset, "base_kld": measured.base_kld},
        )
        return unmeasured_zeros(problem)


class _Candidate(msgspec.Struct):
    dkld: float
    dbits: float


class _Group(msgspec.Struct):
    layers: list[str]
    candidates: list[_Candidate]


class _Model(msgspec.Struct, frozen=True):
    bpw: float | None = None


class _Measurement(msgspec.Struct):
    """A measurement.json; fields that are not needed are left out."""

    groups: list[_Group]
    base: _Model = _Model()
    alts: list[_Model] = []
    base_kld: float = 0.0
