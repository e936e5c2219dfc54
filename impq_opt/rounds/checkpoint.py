"""The state of a run on disk: one safetensors file, replaced whole, and a log that follows from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from impq_opt.documents.writing import atomic_write
from impq_opt.errors import DataError, FileError
from impq_opt.rounds.fit import Tally
from impq_opt.training.samples import Samples

__all__ = ["State", "check_identity", "data_digest", "load_state", "network_digest", "save_state", "write_log"]

_FORMAT, _VERSION = "impq-opt rounds", "1"
CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


@dataclass
class State:
    """Everything that a run needs to go on.

    Parameters
    ----------
    number : int
        The present round.
    bits : list of int
        Precision of each group: chosen in this round where ``chosen``, else in the round before.
    network : dict of str to Tensor
        The float network with its latent weights.
    tally : Tally
        Where training of this round stands.
    chosen : bool
        Whether this round's precisions are decided, so that it is training.
    facts : dict
        What is known of the present round.
    records : list of dict
        One per finished round.
    done : str
        Why the run ended; empty while it goes on.
    """

    network: dict[str, Tensor]
    bits: list[int] = field(default_factory=list)
    number: int = 0
    tally: Tally = field(default_factory=Tally)
    chosen: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    done: str = ""


def save_state(folder: Path, state: State, identity: dict[str, Any]) -> None:
    """Write the checkpoint, then the log; a kill between the two leaves a log that the next one writes anew."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.items()}
    tensors |= {f"momentum.{name}": tensor for name, tensor in state.tally.momentum.items()}
    facts = {
        "number": state.number,
        "bits": state.bits,
        "chosen": state.chosen,
        "facts": state.facts,
        "records": state.records,
        "done": state.done,
        "tally": {
            "step": state.tally.step,
            "hits": state.tally.hits,
            "seen": state.tally.seen,
            "loss": state.tally.loss,
        },
    }
    # safetensors keeps no strides: channels_last tensors are stored plainly and laid out again by the network.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    texts = json.dumps(facts), json.dumps(identity)
    metadata = {"format": _FORMAT, "version": _VERSION, "state": texts[0], "identity": texts[1]}
    atomic_write(folder / CHECKPOINT, save(plain, metadata | {"sha256": _checksum(plain, *texts)}))
    write_log(folder, state)


def load_state(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """Return the state in ``folder`` and the identity of its run, or None where there is none.

    Raises
    ------
    FileError
        The checkpoint is unreadable, truncated, damaged or foreign.
    """
    path = folder / CHECKPOINT
    hint = "remove the folder to start again"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise FileError("the checkpoint cannot be read", where=str(path), value=str(error), hint=hint) from None
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise FileError(
            "is not a checkpoint of this version", where=str(path), value=metadata.get("version"), hint=hint
        )
    texts = metadata.get("state", ""), metadata.get("identity", "")
    if metadata.get("sha256") != _checksum(tensors, *texts):
        raise FileError("the checkpoint is damaged: its checksum does not match", where=str(path), hint=hint)
    facts, identity = json.loads(texts[0]), json.loads(texts[1])
    momentum = {n.removeprefix("momentum."): t for n, t in tensors.items() if n.startswith("momentum.")}
    network = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    tally = Tally(momentum=momentum, **facts.pop("tally"))
    return State(network=network, tally=tally, **facts), identity


def _checksum(tensors: dict[str, Tensor], *texts: str) -> str:
    state = hashlib.sha256("\0".join(texts).encode())
    for name in sorted(tensors):
        state.update(name.encode())
        _update(state, tensors[name])
    return state.hexdigest()


def _update(state: hashlib._Hash, tensor: Tensor) -> None:
    state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_log(folder: Path, state: State) -> None:
    """Write one JSON line per finished round."""
    lines = [json.dumps(record) for record in state.records]
    atomic_write(folder / LOG, "".join(line + "\n" for line in lines).encode())


def check_identity(found: dict[str, Any], given: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with another network, data set or hyper-parameters than the run began with."""
    what = {
        "network": "the network is not the one that this run began with",
        "data": "the data are not those that this run began with",
        "hyper": "the hyper-parameters are not those that this run began with",
    }
    for key, sentence in what.items():
        old, new = found.get(key), given.get(key)
        if old == new:
            continue
        value: Any = ...
        if isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
            value = {k: new.get(k) for k in changed}
        raise DataError(sentence, where=str(folder), value=value, hint="use another folder, or remove this one")


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
        for tensor in (inputs, labels):
            if tensor is not None:
                _update(state, tensor)
    return state.hexdigest()
