"""Weights held against the names that a network has for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impq_opt.errors import DataError
from impq_opt.networks.states import State

__all__ = ["fill", "matched", "versioned"]

# What wrappers put in front of names, or in between; where several prefixes fit, the first of these is taken.
_WRAPPERS = ("module", "_orig_mod")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
# Counters and tables that are no part of the function: missing from some files, left over in others.
_COUNTERS = ("num_batches_tracked", "position_ids", "total_ops", "total_params")
_KEPT = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Fit:
    """How names in a file match a network's: the file's name for each of its own, and what does not match."""

    names: dict[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    shapes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything matches."""
        return not (self.missing or self.unknown or self.shapes)


def fill(network: nn.Module, states: Sequence[State], where: str) -> None:
    """Load the weights that fit a network into it; they keep their type (half precision stays so).

    A prefix such as ``module.``, ``_orig_mod.`` or ``model.`` is dropped, or added, where the names then match.

    Parameters
    ----------
    network : nn.Module
    states : sequence of State
        The first that fits is taken.
    where : str
        For errors.

    Raises
    ------
    DataError
        None fits: what is missing, unknown or of another shape in the nearest; or several do, under other prefixes.
    """
    own = network.state_dict(keep_vars=True)
    weights = matched(own, states, where)
    with torch.no_grad():
        for name, tensor in weights.items():
            if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
                raise DataError(
                    "is of another kind of number than the network's", where=f"{where}: {name}", value=str(tensor.dtype)
                )
            if tensor.dtype in _KEPT and tensor.dtype != own[name].dtype:
                own[name].data = own[name].data.to(tensor.dtype)
    network.load_state_dict(versioned(network, weights), strict=False)


def versioned(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of present names and shapes, with the versions of the network's modules, which files lack.

    Some modules, such as MNASNet, refuse to be loaded without.
    """
    own = network.state_dict()
    own.clear()
    own.update(state)
    return own


def matched(own: dict[str, Tensor], states: Sequence[State], where: str) -> dict[str, Tensor]:
    """Return the weights of the first of ``states`` that fit ``own``, by its names.

    Raises
    ------
    DataError
        Where the weights are not those of the network.
    """
    nearest: tuple[State, Fit] | None = None
    for state in states:
        fits = list(_fits(own, state.tensors))
        good = [(prefix, fit) for prefix, fit in fits if fit.good]
        if good:
            fit = _chosen(good, state.tensors, where)
            return {name: state.tensors[key] for name, key in fit.names.items()}
        best = max((fit for _, fit in fits), key=lambda fit: (len(fit.names) - len(fit.shapes), -len(fit.unknown)))
        if nearest is None or len(best.names) > len(nearest[1].names):
            nearest = (state, best)
    assert nearest is not None
    raise _misfit(own, *nearest, where)


def _chosen(good: list[tuple[str, Fit]], tensors: dict[str, Tensor], where: str) -> Fit:
    """Return the fit of the prefix that wrappers and training loops use; raise where that is not clear."""
    known = sorted((_PREFIXES.index(prefix), place) for place, (prefix, _) in enumerate(good) if prefix in _PREFIXES)
    if len(good) == 1 or good[0][0] == "" or known:
        return good[known[0][1] if known and good[0][0] else 0][1]
    first, *others = (fit.names for _, fit in good)
    if any(not torch.equal(tensors[key], tensors[other[name]]) for other in others for name, key in first.items()):
        raise DataError(
            "holds several sets of weights that fit the network", where=where, value=[prefix for prefix, _ in good],
            hint="save one of them alone",
        )  # fmt: skip
    return good[0][1]


def _fits(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> Iterator[tuple[str, Fit]]:
    """Yield how the names match as they are, without wrappers' names, and with a prefix less or more."""
    plain = _fit(own, tensors, {key: key for key in tensors})
    yield "", plain
    if not plain.missing:  # what is too much is not for a prefix to explain
        return
    given = {key: key for key in tensors}
    bare = {".".join(part for part in key.split(".") if part not in _WRAPPERS): key for key in tensors}
    for named in (given, bare) if bare.keys() != given.keys() and len(bare) == len(given) else (given,):
        if named is bare:
            yield "", _fit(own, tensors, bare)
        for prefix in _prefixes(named, own):
            yield prefix, _fit(own, tensors, {k[len(prefix) :]: v for k, v in named.items() if k.startswith(prefix)})
        for prefix in _prefixes(own, named):
            yield prefix, _fit(own, tensors, {prefix + key: value for key, value in named.items()})


def _prefixes(longer: Iterable[str], shorter: Iterable[str]) -> list[str]:
    """Return what stands in ``longer`` before the whole of a name in ``shorter``, shortest first."""
    names = [name for name in shorter if not name.endswith(_COUNTERS)]
    ends = {max(names, key=len), names[0], names[-1]} if names else set()
    return sorted({key.removesuffix(end) for end in ends for key in longer if key.endswith(f".{end}")}, key=len)


def _fit(own: dict[str, Tensor], tensors: dict[str, Tensor], named: dict[str, str]) -> Fit:
    names = {name: named[name] for name in own if name in named}
    there = {own[name].data_ptr() for name in names}  # a tensor under two names may be stored once
    missing = tuple(
        name
        for name, tensor in own.items()
        if name not in named and not name.endswith(_COUNTERS) and not (tensor.numel() and tensor.data_ptr() in there)
    )
    unknown = tuple(name for name in named if name not in own and not name.endswith(_COUNTERS))
    shapes = tuple(name for name, key in names.items() if own[name].shape != tensors[key].shape)
    return Fit(names, missing, unknown, shapes)


def _misfit(own: dict[str, Tensor], state: State, fit: Fit, where: str) -> DataError:
    """Return the sentence that says how many names do not match, and which."""
    said = []
    if fit.missing:
        said.append(f"missing: {_some(fit.missing)}, {len(fit.missing)} of the network's {len(own)}")
    if fit.unknown:
        said.append(f"unknown: {_some(fit.unknown)}, {len(fit.unknown)} of the file's {len(state.tensors)}")
    if fit.shapes:
        first = fit.shapes[0]
        given, wanted = tuple(state.tensors[fit.names[first]].shape), tuple(own[first].shape)
        said.append(
            f"of another shape: {_some(fit.shapes)}, {len(fit.shapes)} of {len(own)}; {first} is {given}, not {wanted}"
        )
    hint = f"the file has {_some(tuple(state.tensors))}"
    if fit.missing and fit.unknown:
        near = difflib.get_close_matches(fit.missing[0], fit.unknown, n=1, cutoff=0.5)
        hint += f"; nearest to {fit.missing[0]} is {near[0]}" if near else ""
    if fit.missing and re.search(r"-\d+-of-\d+", where):
        hint += "; it is one of several shards, so give their folder or index"
    place = f"{where}: {state.place}" if state.place else where
    return DataError(f"the weights do not fit the network ({'; '.join(said)})", where=place, hint=hint)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
