"""exllamav3: the measurement.json that its optimizer reads in, the tensors to take from which model out."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np

from impq_opt.costs import TableCost
from impq_opt.errors import AllocationError, FileError
from impq_opt.exchange.base import Precision, Reader, Writer, typed, whole
from impq_opt.exchange.choice import Chooser, Said
from impq_opt.exchange.scores import shifted, table
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.arrays import allowed_tables
from impq_opt.groups.candidates import Candidates, gather_sets
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.names import GroupNames
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.problem.unmeasured import few
from impq_opt.types import FloatArray, IntArray

__all__ = ["ExLlamaV3"]


@dataclass(frozen=True)
class ExLlamaV3(Reader, Writer, Chooser):
    """Groups of layers, each with its base model's version and one candidate a further model.

    Cost is the number of bits more than the base model's, damage the KL divergence more than the base model's. A
    group's number of weights is not in the file; it follows from those bits and the models' bits a weight. What is
    written names, for each layer, the model that its tensors are taken from, as ``util/recompile.py --override`` reads
    it (YAML, of which JSON is a part); layers of the base model are not named.

    Parameters
    ----------
    models : str
        For problems from elsewhere: the folder of the model quantized at ``{bits}`` bits a weight.
    """

    name: ClassVar[str] = "exllamav3"
    summary: ClassVar[str] = "measurement.json of exllamav3's measure step in, override spec of its recompile step out"
    source: ClassVar[str] = "https://github.com/turboderp-org/exllamav3 (measure_model.py, util/recompile.py)"
    limits: ClassVar[str] = "each layer as in one of the quantized models, 1 to 8 bits; weights only"

    models: str = "{bits}.0bpw"

    # -- in ----------------------------------------------------------------------------------------------------------

    def problem(self, scores: Any) -> Problem:
        """Return the problem of a measurement.

        Raises
        ------
        FileError
            Where it is none, or a group has no layers or no candidates.
        """
        measured = typed(scores, _Measurement)
        if not measured.groups:
            raise FileError("has no groups", where="groups")
        names = [" + ".join(group.layers) or f"groups[{k}]" for k, group in enumerate(measured.groups)]
        alone = [group.layers[0] if len(group.layers) == 1 else "" for group in measured.groups]
        labels = GroupNames.explicit(names, [layer or name for layer, name in zip(alone, names, strict=True)])
        counts = [1 + len(group.candidates) for group in measured.groups]
        bits = table([[0.0, *(c.dbits for c in group.candidates)] for group in measured.groups], names, "dbits")
        changes = table([[0.0, *(c.dkld for c in group.candidates)] for group in measured.groups], names, "dkld")
        costs, scored = allowed_tables(bits, changes)
        damage, note = shifted(scored, labels)
        models = [measured.base, *measured.alts]
        rates = [model.bpw for model in models if model.bpw is not None and 0 <= model.bpw < math.inf]
        known = len(rates) == len(models) >= max(counts)
        widths = rates if known else [float(k) for k in range(max(counts))]
        sizes, unsized = _sizes(costs, rates if known else [])
        candidates = gather_sets(
            [tuple(widths[:count]) for count in counts], [tuple(f"model {k}" for k in range(count)) for count in counts]
        )
        provenance: dict[str, Any] = {"base_kld": measured.base_kld, "models": [model.dir for model in models], **note}
        if any(len(group.layers) > 1 for group in measured.groups):
            provenance["layers"] = {name: group.layers for name, group in zip(names, measured.groups, strict=True)}
        if known and len(unsized):
            provenance["size_unknown"] = few(labels, unsized)
        problem = Problem(
            names=labels,
            candidates=Candidates(candidates.sets, candidates.set_of, candidates.formats, numbered=not known),
            damage=DamageTable(damage),
            sizes=sizes,
            costs=(TableCost.from_array(whole(costs), name=_COST, unit="bit", source="bits above the base model"),),
            objective={_COST: 1},
            metric="exllamav3",
            damage_unit="KL divergence above the best of each group",
            provenance=provenance,
        )
        return unmeasured_zeros(problem)

    # -- out ---------------------------------------------------------------------------------------------------------

    def precisions(self) -> tuple[Precision, ...]:
        # Two vectors of signs and scales a matrix cost the same at every precision.
        return tuple(Precision(str(bits), bits, bits) for bits in range(1, 9))

    def prepare(self, problem: Problem) -> Problem:
        return problem if problem.metric == self.name else super().prepare(problem)

    def config(self, allocation: Allocation) -> dict[str, Any]:
        """Return the override spec: models as sources, and for each layer the one that its tensors are taken from."""
        taken = self._measured(allocation) if allocation.problem.metric == self.name else self._uniform(allocation)
        sources = {folder: place for place, folder in enumerate(dict.fromkeys(taken.values()))}
        return {
            "sources": [{"id": place, "model_dir": folder} for folder, place in sources.items()],
            "overrides": [{"key": f"{layer}.*", "source": sources[folder]} for layer, folder in taken.items()],
        }

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return the model of each group by an override spec; what it does not name is the base model's.

        Raises
        ------
        FileError
            Where a source is no known model, or the layers of a group come from different ones.
        """
        spec = typed(configuration, _Spec)
        told = self._folders(problem)
        sources: dict[int, Said] = {}
        for source in spec.sources:
            if source.model_dir not in told:
                raise FileError(
                    "is not the folder of a known model",
                    where=f"sources: {source.id}",
                    value=source.model_dir,
                    hint=f"known are {', '.join(told)}",
                )
            sources[source.id] = told[source.model_dir]
        named = {override.key.removesuffix(".*"): override.source for override in spec.overrides}
        wild = [(override.key, override.source) for override in spec.overrides if "*" in override.key[:-1]]
        members: Mapping[str, Sequence[str]] = problem.provenance.get("layers", {})
        base: Said | None = ("model 0",) if problem.metric == self.name else None
        chosen: dict[str, Said] = {}
        for name in problem.names:
            said: set[Said | None] = set()
            for layer in members.get(name, [name]):
                patterns = (source for key, source in wild if fnmatch.fnmatchcase(f"{layer}.", key))
                number = named.get(layer, next(patterns, None))
                if number is not None and number not in sources:
                    raise FileError("is no source", where=f"overrides: {layer}", value=number)
                said.add(base if number is None else sources[number])
            if len(said) > 1:
                raise FileError("takes its layers from different models", where=name)
            only = said.pop()
            if only is not None:
                chosen[name] = only
        return chosen

    def _folders(self, problem: Problem) -> dict[str, Said]:
        """Return by the folder of a model which candidate it is."""
        if problem.metric == self.name:
            return {folder: (f"model {k}",) for k, folder in enumerate(problem.provenance.get("models", []))}
        return {self.models.replace("{bits}", str(bits)): (str(bits),) for bits in range(1, 9)}

    def _measured(self, allocation: Allocation) -> dict[str, str]:
        """Return the folder of each layer that is not the base model's, by the models that were measured."""
        problem = allocation.problem
        folders = problem.provenance.get("models", [])
        members: Mapping[str, Sequence[str]] = problem.provenance.get("layers", {})
        taken: dict[str, str] = {}
        for group, (name, column) in enumerate(zip(problem.names, allocation._need().tolist(), strict=True)):
            label = problem.candidates.label(group, column)
            model = int(label.removeprefix("model "))
            if model >= len(folders) or not folders[model]:
                raise AllocationError("the measurement names no folder of that model", where=name, value=label)
            if model:
                taken |= dict.fromkeys(members.get(name, [name]), folders[model])
        return taken

    def _uniform(self, allocation: Allocation) -> dict[str, str]:
        """Return the folder of each layer, by the bits that it has."""
        return {
            layer.name.removesuffix(".weight"): self.models.replace("{bits}", str(layer.weight.bits))
            for layer in self.layers(allocation)
        }


_COST = "extra-bits"


def _sizes(costs: Any, rates: Sequence[float]) -> tuple[IntArray, IntArray]:
    """Return the number of weights (G,) of each group, and the groups where nothing tells it; those count as 1.

    Going from the base model to model k adds ``N (b_k - b_0)`` bits. Tensors have whole bits, so where the rates'
    differences, rounded, give the same N for every model, that is it; else it is the N nearest to all in squares.
    """
    added: FloatArray = np.asarray(costs, dtype=np.float64)[:, 1:]
    more = np.array([rate - rates[0] for rate in rates[1:]])[: added.shape[1]]
    if not more.any():
        return np.ones(len(added), dtype=np.int64), np.arange(len(added))
    sizes, steps = added @ more / (more @ more), np.rint(more)
    if (steps > 0).all():
        alike = (added * steps[0] == added[:, :1] * steps).all(axis=1) & (added[:, 0] % steps[0] == 0)
        sizes = np.where(alike, added[:, 0] / steps[0], sizes)
    unknown = ~(np.rint(sizes) >= 1)
    return np.where(unknown, 1, np.rint(sizes)).astype(np.int64), np.flatnonzero(unknown)


class _Candidate(msgspec.Struct):
    dkld: float
    dbits: float


class _Group(msgspec.Struct):
    layers: list[str]
    candidates: list[_Candidate]


class _Model(msgspec.Struct, frozen=True):
    bpw: float | None = None
    dir: str = ""


class _Source(msgspec.Struct):
    id: int
    model_dir: str


class _Override(msgspec.Struct):
    key: str
    source: int


class _Spec(msgspec.Struct):
    """An override spec of util/recompile.py."""

    sources: list[_Source]
    overrides: list[_Override]


class _Measurement(msgspec.Struct):
    """A measurement.json; fields that are not needed are left out."""

    groups: list[_Group]
    base: _Model = _Model()
    alts: list[_Model] = []
    base_kld: float = 0.0
