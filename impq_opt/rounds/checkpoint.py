"""The state of a run on disk, version 2: one safetensors file, replaced whole, and a log that follows from it.

Version 1 is read as well: its settings were the same table, its optimizer was known to have momentum alone, and records
did not say their version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from impq_opt.data.batch import parts_of
from impq_opt.documents.wording import in_words
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import DataError, FileError, InputError
from impq_opt.networks.matching import versioned
from impq_opt.rounds.record import LOG, Decision, Record, plain_record, record_from, write_records
from impq_opt.rounds.settings import Settings
from impq_opt.training import Progress
from impq_opt.training.samples import Samples

__all__ = [
    "Identity",
    "State",
    "check_identity",
    "data_digest",
    "load_state",
    "network_digest",
    "own_state",
    "save_state",
]

_FORMAT, _VERSION = "impq-opt rounds", "2"
CHECKPOINT = "checkpoint.safetensors"


@dataclass
class State:
    """Everything that a run needs to go on.

    Parameters
    ----------
    network : dict of str to Tensor
        The float network with its latent weights.
    learned : dict of str to Tensor
        What the quantized network has besides, such as learned spans, by its own names: as training left it, in this
        round once it has begun to train, else in the round before.
    number : int
        The present round.
    bits : list of int
        Precision of each group: chosen in this round where there is a ``decision``, else in the round before.
    progress : Progress
        Where training of this round stands.
    decision : Decision, optional
        What this round decided, so that it is training.
    memory : dict
        What the policy remembers.
    trials : list of float
        What the policy's trials of this round gave.
    last : str
        Why this round is the last, by the policy's word; empty while it is not.
    records : list of Record
        One per finished round.
    done : str
        Why the run ended; empty while it goes on.
    """

    network: dict[str, Tensor]
    learned: dict[str, Tensor] = field(default_factory=dict)
    bits: list[int] = field(default_factory=list)
    number: int = 0
    progress: Progress = field(default_factory=Progress)
    decision: Decision | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    trials: list[float] = field(default_factory=list)
    last: str = ""
    records: list[Record] = field(default_factory=list)
    done: str = ""


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """What a run belongs to: digests of the network and the data, and the settings in one table."""

    network: str
    data: str
    hyper: dict[str, Any]


class _Tally(msgspec.Struct, forbid_unknown_fields=True):
    step: int
    hits: int
    seen: int
    loss: float


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A state without its tensors, as the file has it."""

    number: int
    bits: list[int]
    records: list[dict[str, Any]]
    done: str
    tally: _Tally
    decision: Decision | None = None
    memory: dict[str, Any] = {}
    trials: list[float] = []
    last: str = ""


def save_state(folder: Path, state: State, identity: Identity) -> None:
    """Write the checkpoint, then the log; a kill between the two leaves a log that the next one writes anew."""
    groups = {"network": state.network, "learned": state.learned, "optimizer": state.progress.optimizer}
    # safetensors keeps no strides: channels_last tensors are stored plainly and laid out again by the network.
    tensors = {
        f"{group}.{name}": tensor.detach().cpu().contiguous().clone()
        for group, values in groups.items()
        for name, tensor in values.items()
    }
    done = state.progress
    plain = _Plain(
        number=state.number,
        bits=state.bits,
        records=[plain_record(record) for record in state.records],
        done=state.done,
        tally=_Tally(step=done.step, hits=done.hits, seen=done.seen, loss=done.loss),
        decision=state.decision,
        memory=state.memory,
        trials=state.trials,
        last=state.last,
    )
    texts = msgspec.json.encode(plain).decode(), msgspec.json.encode(identity).decode()
    metadata = {"format": _FORMAT, "version": _VERSION, "state": texts[0], "identity": texts[1]}
    atomic_write(folder / CHECKPOINT, save(tensors, metadata | {"sha256": _checksum(tensors, *texts)}))
    write_records(folder / LOG, state.records)


def load_state(folder: Path) -> tuple[State, Identity] | None:
    """Return the state in ``folder`` and the identity of its run, or None where there is none.

    Raises
    ------
    FileError
        The checkpoint is unreadable, truncated, damaged, foreign, or of a later version.
    """
    path = folder / CHECKPOINT
    hint = "remove the folder to start again"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError):
        raise FileError("the checkpoint cannot be read", where=str(path), hint=hint) from None
    version = metadata.get("version")
    if metadata.get("format") != _FORMAT:
        raise FileError("is not a checkpoint of rounds", where=str(path), value=metadata.get("format"), hint=hint)
    if version not in ("1", _VERSION):
        raise FileError(
            f"the checkpoint is of a version that this package does not read, which reads 1 to {_VERSION}",
            where=str(path), value=version, hint="go on with the package that wrote it",
        )  # fmt: skip
    texts = metadata.get("state", ""), metadata.get("identity", "")
    if metadata.get("sha256") != _checksum(tensors, *texts):
        raise FileError("the checkpoint is damaged: its checksum does not match", where=str(path), hint=hint)
    try:
        identity = msgspec.json.decode(texts[1], type=Identity)
        if version == "1":
            plain = _plain_of_version_1(texts[0], identity)
        else:
            plain = msgspec.json.decode(texts[0], type=_Plain)
        return _state(plain, tensors, str(path)), identity
    except msgspec.MsgspecError as error:
        what, place = in_words(error)
        said = f"the checkpoint does not say what it should: {place and place + ' '}{what}"
        raise FileError(said, where=str(path), hint=hint) from None


def _state(plain: _Plain, tensors: dict[str, Tensor], where: str) -> State:
    def group(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    tally = plain.tally
    optimizer = group("optimizer.") | {f"momentum_buffer.{name}": t for name, t in group("momentum.").items()}
    return State(
        network=group("network."),
        learned=group("learned."),
        bits=plain.bits,
        number=plain.number,
        progress=Progress(tally.step, optimizer, tally.hits, tally.seen, tally.loss),
        decision=plain.decision,
        memory=plain.memory,
        trials=plain.trials,
        last=plain.last,
        records=[record_from(values, where) for values in plain.records],
        done=plain.done,
    )


def _plain_of_version_1(text: str, identity: Identity) -> _Plain:
    """Return a state of version 1 as version 2 has it."""
    old = msgspec.json.decode(text, type=dict[str, Any])
    chosen, decision = old.pop("chosen", False), old.pop("facts", None)
    plain = msgspec.convert(old | {"decision": decision if chosen else None}, _Plain)
    # The paper's heuristic ended after a round that changed nothing; version 1 found that out when the round was over.
    heuristic = identity.hyper.get("strategy") in ("iterative", "authors-code")
    if heuristic and plain.decision and plain.records and plain.bits == plain.records[-1].get("bits"):
        plain.last = "nothing left to take"
    return plain


def _checksum(tensors: dict[str, Tensor], *texts: str) -> str:
    state = hashlib.sha256("\0".join(texts).encode())
    for name in sorted(tensors):
        state.update(name.encode())
        _update(state, tensors[name])
    return state.hexdigest()


def _update(state: hashlib._Hash, tensor: Tensor) -> None:
    state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def check_identity(kept: Identity, given: Identity, folder: Path) -> None:
    """Refuse to go on with another network, data set or settings than the run began with.

    Raises
    ------
    DataError
        What differs, and the new values of settings that do.
    """
    what = {
        "network": "the network is not the one that this run began with",
        "data": "the data are not those that this run began with",
        "hyper": "the hyper-parameters are not those that this run began with",
    }
    old, new = _of_today(kept, folder), given.hyper
    changed = {name: new.get(name) for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)}
    values: dict[str, Any] = {"hyper": changed}
    for name, sentence in what.items():
        same = not changed if name == "hyper" else getattr(kept, name) == getattr(given, name)
        if not same:
            hint = "use another folder, or remove this one"
            raise DataError(sentence, where=str(folder), value=values.get(name, ...), hint=hint)


def _of_today(kept: Identity, folder: Path) -> dict[str, Any]:
    """Return the settings of a run as today's package writes them: without what has no say any more."""
    told = dict(kept.hyper)
    processes = told.pop("processes", 1)
    try:
        return Settings.from_dict(told).identity() | {"processes": processes}
    except InputError as error:
        raise error.within(str(folder)) from None


def own_state(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of ``state`` that are the network's; raise DataError where one is missing."""
    names = network.state_dict()
    missing = [name for name in names if name not in state]
    if missing:
        raise DataError("has no values for the whole network", where="the state of a run", value=missing[0])
    return versioned(network, {name: state[name] for name in names})


def network_digest(network: nn.Module) -> str:
    """Return SHA-256 over names, shapes and values of a network's state."""
    state = hashlib.sha256(type(network).__name__.encode())
    for name, tensor in network.state_dict().items():
        state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        _update(state, tensor)
    return state.hexdigest()


def data_digest(*parts: Samples) -> str:
    """Return SHA-256 over data sets: tensors whole, others by length and 64 samples spread over them."""
    state = hashlib.sha256()
    for part in parts:
        inputs, labels = getattr(part, "inputs", None), getattr(part, "labels", None)
        state.update(f"{len(part)};".encode())
        if not isinstance(inputs, Tensor):
            inputs, labels = part.rows(torch.linspace(0, len(part) - 1, min(64, len(part))).long())
        for tensor in (*parts_of(inputs).values(), labels):
            if tensor is not None:
                _update(state, tensor)
    return state.hexdigest()
