"""Weights out of files and folders as people have them; nothing is unpickled but tensors."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impq_opt.data.items import tensor_of
from impq_opt.errors import DataError, FileError, first_line

__all__ = ["State", "read_states"]

# Where checkpoints keep the weights, those of training before running means of them. Other places are looked at last.
_PLACES = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "state_dict_ema", "model_ema", "ema", "params_ema",
)  # fmt: skip
_DEPTH = 3  # of a folder in a folder in a checkpoint
_IN_FOLDERS = ("model", "pytorch_model", "diffusion_pytorch_model", "weights")  # Hugging Face's names first
_FOREIGN = frozenset((".h5", ".keras", ".onnx", ".gguf", ".tflite", ".pb", ".msgpack", ".ot", ".mlmodel", ".engine"))
_HINT = "save the state dict alone"


@dataclass(frozen=True, eq=False)
class State:
    """Tensors by name, and where in the file they are: ``"state_dict"``, or ``""`` for the file itself."""

    place: str
    tensors: dict[str, Tensor]


def read_states(path: str | Path) -> list[State]:
    """Return the sets of weights in a file or folder, the likeliest first.

    Parameters
    ----------
    path : str or Path
        A safetensors file; an ``.npz`` file; what ``torch.save`` wrote of a state dict or a checkpoint with one in it
        (Lightning's, timm's); the index (``.index.json``) of a file in shards; or a folder of Hugging Face's.

    Raises
    ------
    FileError
        Missing or foreign files, missing shards, files that hold more than tensors.
    """
    path = Path(path).expanduser()
    if os.path.isdir(path):
        return read_states(_in_folder(path))
    if not os.path.isfile(path):
        raise FileError("no such file", where="weights", value=str(path))
    if path.suffix in _FOREIGN:
        raise FileError("is of another framework", where=str(path), hint="save the weights as safetensors")
    if path.suffix == ".json":
        return [State("", _shards(path))]
    held = _read(path)
    states = sorted(_states(held, ""), key=lambda state: (not _has_matrices(state.tensors), _rank(state.place)))
    if not states:
        kind = sorted(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
        raise FileError("is not a state dict", where=str(path), value=kind, hint=_HINT)
    return states


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return {name: tensor_of(held[name], f"{path}: {name}") for name in held.files}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the protocol of a pickle that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except DataError as error:
        raise FileError(error.what, where=error.where, value=error.value) from None
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))  # torch says what it would have had to run
        what = "holds more than tensors and will not be unpickled"
        raise FileError(what, where=str(path), value=kind[1] if kind else ..., hint=_HINT) from None
    except Exception as error:  # safetensors, zip and pickle each raise their own kinds
        first = first_line(error)
        if "TorchScript" in first:
            raise FileError("is a TorchScript program, which holds code", where=str(path), hint=_HINT) from None
        raise FileError("is not a state dict or safetensors file", where=str(path)) from None


def _states(held: Any, place: str, depth: int = 0) -> Iterator[State]:
    """Yield every mapping that has tensors by name; what else is in it (epochs, settings) is left out."""
    if not isinstance(held, Mapping) or depth > _DEPTH:
        return
    tensors = {key: value.detach() for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield State(place, tensors)
    for key, value in held.items():
        if isinstance(key, str) and not key.startswith("optim"):
            yield from _states(value, f"{place}.{key}".lstrip("."), depth + 1)


def _rank(place: str) -> tuple[int, ...]:
    """Return where a place stands among all: the file itself, then by the names along the way."""
    return tuple(_PLACES.index(name) if name in _PLACES else len(_PLACES) for name in place.split(".")) if place else ()


def _has_matrices(tensors: dict[str, Tensor]) -> bool:
    """Return whether there are weights among the tensors, and not a few numbers alone."""
    return any(tensor.ndim > 1 for tensor in tensors.values())


def _in_folder(folder: Path) -> Path:
    """Return the file of weights in a folder, or the index of its shards."""
    for suffix in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth"):
        for stem in _IN_FOLDERS:
            if os.path.isfile(folder / f"{stem}{suffix}"):
                return folder / f"{stem}{suffix}"
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
    if len(files) != 1:
        what = "holds several files of weights, and no index of them" if files else "holds no weights"
        shown = [file.name for file in files or sorted(folder.iterdir())][:5]
        raise FileError(what, where=str(folder), value=shown, hint="name the file")
    return files[0]


def _shards(index: Path) -> dict[str, Tensor]:
    """Return the tensors that an index finds in files beside it."""
    try:
        places = json.loads(index.read_text())["weight_map"]
        names = {str(key): str(file) for key, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(
            "is no index of shards", where=str(index), value=str(error), hint="it has a weight_map"
        ) from None
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(names.values()):
        if Path(file).name != file:
            raise FileError("must name files beside it", where=str(index), value=file)
        if not os.path.isfile(index.parent / file):
            raise FileError("names a shard that is missing", where=str(index), value=file, hint="is it all downloaded?")
        held = read_states(index.parent / file)[0].tensors
        wanted = [key for key, place in names.items() if place == file]
        lacking = [key for key in wanted if key not in held]
        if lacking:
            raise FileError(f"should hold {lacking[0]!r}", where=str(index.parent / file), hint=f"so says {index.name}")
        tensors |= {key: held[key] for key in wanted}
    if not tensors:
        raise FileError("names no tensors", where=str(index))
    return tensors
