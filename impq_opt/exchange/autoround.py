"""Intel AutoRound: AutoScheme's score caches in, ``layer_config`` out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from impq_opt.costs import TableCost
from impq_opt.documents.reading import read_json
from impq_opt.errors import FileError
from impq_opt.exchange.base import Layer, Precision, Reader, Writer, typed
from impq_opt.exchange.choice import Chooser, Said
from impq_opt.exchange.fused import fused_ties
from impq_opt.exchange.scores import shifted, table
from impq_opt.exchange.zeros import unmeasured_zeros
from impq_opt.groups.candidates import Candidates
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.names import GroupNames
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem

__all__ = ["AutoRound"]


@dataclass(frozen=True)
class AutoRound(Reader, Writer, Chooser):
    """Reads the caches of a scoring run, one file a scheme; writes ``{layer: {"bits": 4, "group_size": 128}}``.

    A cache holds, for each layer, all its bits in that scheme (scales and zero points counted by AutoRound) and the
    change of the loss. A run that left scales out (``ignore_scale_zp_bits``) is known by bits in proportion to the
    schemes'; they are added here as AutoRound counts them otherwise, and ``scales_added`` in the provenance says so.
    Problems that were read from caches are written with the very schemes that they hold.

    Parameters
    ----------
    group_size : int
        For plain bits: elements that share a scale of 16 bits and a zero point of the weights' bits.
    """

    name: ClassVar[str] = "autoround"
    summary: ClassVar[str] = "AutoScheme score caches in, layer_config out"
    source: ClassVar[str] = "https://github.com/intel/auto-round (auto_scheme/delta_loss.py, version 1, per_op)"
    package: ClassVar[str] = "auto-round"
    limits: ClassVar[str] = "one scheme a layer, 2 to 8 bits, inputs of 4, 8 or 16 bits, fused layers agree"
    fused: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, ...]] = (4, 8, 16)

    group_size: int = 128

    # -- in ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> list[Any]:
        files = [file for path in paths for file in (sorted(path.glob("*.json")) if os.path.isdir(path) else [path])]
        if not files:
            raise FileError("holds no score cache", where=", ".join(map(str, paths)), hint="one .json a scheme")
        return [read_json(file, infinite=True) for file in files]

    def problem(self, scores: Sequence[Any]) -> Problem:
        """Return the problem of several caches, one a scheme, over the same layers.

        Raises
        ------
        FileError
            Where a cache is none, or does not score the same layers as the first.
        """
        if not isinstance(scores, Sequence) or not scores:
            raise FileError("must be a list of score caches", value=scores, hint="one a scheme")
        caches = [typed(cache, _Cache, f"file {place + 1}") for place, cache in enumerate(scores)]
        layers = list(caches[0].layer_scores)
        for place, cache in enumerate(caches):
            odd = sorted(set(cache.layer_scores) ^ set(layers))
            if not layers:
                raise FileError("has no layers", where=f"file {place + 1}: layer_scores")
            if odd:
                hint = "give the caches of one model, one a scheme"
                raise FileError(
                    "does not score the same layers as file 1", where=f"file {place + 1}", value=odd[0], hint=hint
                )
        schemes = [_stated(cache.scheme) for cache in caches]
        labels = [_label(scheme) for scheme in schemes]
        bits = np.array([[cache.layer_scores[layer][0] for cache in caches] for layer in layers], dtype=np.int64)
        losses = [[cache.layer_scores[layer][1] for cache in caches] for layer in layers]
        names = GroupNames.explicit(layers)
        damage, note = shifted(table(losses, layers, "loss"), names)
        bare = _bare(bits, schemes)
        sizes = _sizes(bits, schemes, bare)
        if bare:
            added = np.array([[_overhead(scheme, int(n)) for scheme in schemes] for n in sizes], dtype=np.int64)
            bits, note = bits + added, {**note, "scales_added": _added(schemes)}
        widths = [float(w) for w in np.round(bits.sum(axis=0) / sizes.sum(), 6)]
        problem = Problem(
            names=names,
            candidates=Candidates((tuple(widths),), None, (tuple(labels),)),
            damage=DamageTable(damage),
            sizes=sizes,
            costs=(TableCost.from_array(bits, name="bits", unit="bit", source="AutoRound: weights, scales, zeros"),),
            objective={"bits": 1},
            metric="autoround",
            damage_unit="loss above the best of each layer",
            provenance={**note, "schemes": dict(zip(labels, schemes, strict=True))},
        )
        return unmeasured_zeros(problem).revise(ties=fused_ties(problem.names))

    # -- out ---------------------------------------------------------------------------------------------------------

    def precisions(self) -> tuple[Precision, ...]:
        size = self.group_size
        stored = [Precision(str(b), b, {"bits": b, "group_size": size}, size, 16 + b) for b in (2, 3, 4, 5, 6, 7, 8)]
        return (*stored, Precision("16", 16, {"bits": 16}, held="network"))

    def config(self, allocation: Allocation) -> dict[str, dict[str, Any]]:
        layers = self.layers(allocation, _schemes(allocation.problem) + self.precisions())
        return {layer.name.removesuffix(".weight"): _entry(layer) for layer in layers}

    def choice(self, configuration: Any, problem: Problem) -> Mapping[str, Said]:
        """Return what a layer_config says, by scheme where the problem has schemes, and else by bits."""
        schemes = typed(configuration, dict[str, _Scheme])
        fields = {layer: _stated(scheme) for layer, scheme in schemes.items()}
        return {layer: (_label(scheme), str(scheme["bits"])) for layer, scheme in fields.items()}


def _schemes(problem: Problem) -> tuple[Precision, ...]:
    """Return the schemes that the problem was read with."""
    known: Mapping[str, Mapping[str, Any]] = problem.provenance.get("schemes", {})
    fields = _Scheme.__struct_fields__
    return tuple(
        Precision(label, int(scheme.get("bits", 16)), {key: scheme[key] for key in fields if key in scheme})
        for label, scheme in known.items()
    )


def _stated(scheme: _Scheme) -> dict[str, Any]:
    return {key: value for key, value in msgspec.to_builtins(scheme).items() if value is not None}


def _entry(layer: Layer) -> dict[str, Any]:
    inputs = {"act_bits": int(layer.input_bits)} if layer.input_bits is not None and layer.input_bits < 16 else {}
    return dict(layer.weight.entry) | inputs


def _label(scheme: Mapping[str, Any]) -> str:
    """Return a name such as ``W4A16-g128``; AutoRound's own presets have the first part."""
    kind = str(scheme.get("data_type", "int"))
    text = f"W{scheme.get('bits', 16)}A{scheme.get('act_bits', 16)}-g{scheme.get('group_size', -1)}"
    return text + ("" if scheme.get("sym", True) else "-asym") + ("" if kind == "int" else f"-{kind}")


def _bare(bits: Any, schemes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether scales and zero points were left out: bits are then exactly in proportion to the schemes' own."""
    widths = np.array([int(scheme.get("bits", 16)) for scheme in schemes])
    narrow = np.unique(widths[widths < 16])
    # Wide schemes have no scales in any case, and schemes of one width are in proportion whatever is counted.
    return len(np.unique(widths)) > 1 and len(narrow) > 0 and bool((bits * widths[0] == bits[:, :1] * widths).all())


def _sizes(bits: Any, schemes: Sequence[Mapping[str, Any]], bare: bool) -> Any:
    """Return the number of weights of each layer, from its bits in the scheme with the fewest assumptions.

    AutoRound counts ``bits N`` and, for each group of g, a scale of 16 bits and a zero point of ``bits``; N alone where
    scales are ``bare`` of them.
    """
    plain = [k for k, s in enumerate(schemes) if s.get("bits", 16) >= 16]
    column = plain[0] if plain else 0
    scheme = schemes[column]
    width, group = int(scheme.get("bits", 16)), int(scheme.get("group_size", 0) or 0)
    total = width if bare or width >= 16 or group <= 0 else width + (16 + width) / group
    return np.maximum(np.rint(bits[:, column] / total).astype(np.int64), 1)


def _overhead(scheme: Mapping[str, Any], size: int) -> int:
    """Return the bits of a layer's scales and zero points, as ``compute_layer_bits`` of AutoRound 0.16 counts them.

    A last group that is not full counts once a layer, since rows are not known; with a scale a channel (groups of -1)
    there is nothing to count by.
    """
    bits, group = int(scheme.get("bits", 16)), int(scheme.get("group_size", -1))
    if bits >= 16 or group < 0:
        return 0
    groups = -(-size // group) if group else 1
    if scheme.get("super_group_size"):
        return int(groups * scheme.get("super_bits", 0) * 2 + -(-groups // scheme["super_group_size"]) * 32 * 2)
    kind = str(scheme.get("data_type", "int"))
    scale = 8 if any(name in kind for name in ("mx_fp", "nv_fp", "fp4")) else 16
    return groups * (scale + (bits if not scheme.get("sym") or "int" in kind else 0))


def _added(schemes: Sequence[Mapping[str, Any]]) -> str:
    """Return in words what was added to bits that lacked scales, and where it could not be."""
    by_channel = [_label(s) for s in schemes if s.get("bits", 16) < 16 and s.get("group_size", -1) < 0]
    return "scales and zero points" + (f", but of {', '.join(by_channel)} (one a channel)" if by_channel else "")


class _Scheme(msgspec.Struct):
    """The fields of a scheme that a layer_config entry takes."""

    bits: Annotated[int, msgspec.Meta(ge=1, le=32)] = 16
    group_size: int | None = None
    sym: bool | None = None
    data_type: str | None = None
    act_bits: Annotated[int, msgspec.Meta(ge=1, le=32)] | None = None
    act_group_size: int | None = None
    act_sym: bool | None = None
    act_data_type: str | None = None
    act_dynamic: bool | None = None
    super_bits: Annotated[int, msgspec.Meta(ge=0, le=32)] | None = None
    super_group_size: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Cache(msgspec.Struct):
    """A cache of version 1, per operator: for each layer its bits and the change of the loss."""

    version: Literal[1]
    score_granularity: Literal["per_op"]
    scheme: _Scheme
    layer_scores: dict[str, tuple[Annotated[int, msgspec.Meta(ge=1, lt=2**53)], float]]
