"""Integer codes in their allocated bits, in one safetensors file, and back bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from impq_opt.data.batch import Structure
from impq_opt.documents.writing import atomic_write
from impq_opt.errors import DataError, FileError, OptionError, nearest
from impq_opt.networks.matching import versioned
from impq_opt.quantize.methods import ActivationQuantizer, Method, Quantizer, load_method
from impq_opt.quantize.methods.mid_rise import MidRise
from impq_opt.quantize.network import (
    activation_quantizers,
    learned_of,
    quantized_weights,
    storage_bits,
    traced_for,
    with_activations,
)
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.plain import plain

__all__ = [
    "PackedSize",
    "Unpacked",
    "UnpackedWeight",
    "pack",
    "pack_codes",
    "packed",
    "unpack",
    "unpack_codes",
    "unpack_into",
    "unpack_traced",
]

# Version 1 names activations as torch.fx does, version 2 as measurements do. New in it are what the network takes,
# methods other than mid-rise, and weights in half precision. Version 3 says each name once: tensors lie behind each
# other by type, where a header of safetensors takes a hundred bytes for each.
_FORMAT, _VERSIONS = "impq-opt packed network", ("1", "2", "3")
_USUAL = torch.float32  # the type of tensors that say none
_MID_RISE = ("over", "statistic", "one_bit")  # its options, as version 1 writes them
# Elements whose bits are spread out at a time: 8 bytes each at 8 bits.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class PackedSize:
    """Where the bits of a packed file go; all in bits.

    Parameters
    ----------
    codes : int
        The weights in their allocated precisions: the problem's storage cost, exactly.
    scales : int
        What decoding needs beside the codes: one float32 per range on uniform grids, of float64 for weights of float64;
        and what quantizers of activations learned.
    widths : int
        One byte per group: the allocation itself.
    padding : int
        Up to the next whole byte, less than 8 per weight tensor.
    others : int
        Biases, batch-norms and buffers, as they are.
    header : int
        Names, shapes and activation precisions.
    """

    codes: int
    scales: int
    widths: int
    padding: int
    others: int
    header: int

    @property
    def total(self) -> int:
        """The size of the file."""
        return self.codes + self.scales + self.widths + self.padding + self.others + self.header


@dataclass(frozen=True, eq=False)
class UnpackedWeight:
    """The codes of a weight, the precision of each of its elements, and the method that they are of."""

    codes: Tensor
    bits: npt.NDArray[np.int64]
    method: str


@dataclass(frozen=True, eq=False)
class Unpacked:
    """What a packed file holds.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of the float network with the quantized values.
    bits : mapping of str to ndarray (G,)
        Precision of the groups of each weight.
    activations : tuple of ActivationQuantizer
    input : mapping, optional
        What the network takes, as :func:`~impq_opt.tracing.example.describe_input` has it.
    version : str
        Of the file.
    weights : mapping of str to UnpackedWeight
        The codes that quantized values were made of, of the shape of each weight.
    """

    state: Mapping[str, Tensor]
    bits: Mapping[str, npt.NDArray[np.uint8]]
    activations: tuple[ActivationQuantizer, ...]
    input: Mapping[str, Any] | None = None
    version: str = _VERSIONS[-1]
    weights: Mapping[str, UnpackedWeight] = field(default_factory=dict)


def pack_codes(codes: npt.NDArray[Any], bits: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return ``codes`` (n,), of ``bits`` (n,) each, as one stream of bits in bytes, lowest bit first.

    The stream is the concatenation of the codes without gaps; the last byte is filled up with zeros.
    """
    parts, rest = [], np.empty(0, dtype=np.uint8)
    for start in range(0, len(codes), _CHUNK):
        some = slice(start, start + _CHUNK)
        widths = bits[some].astype(np.int64)
        ends = np.cumsum(widths)
        stream = np.zeros(int(ends[-1]), dtype=np.uint8)
        for place in range(int(widths.max())):
            long = widths > place
            stream[(ends - widths)[long] + place] = (codes[some][long] >> place) & 1
        stream = np.concatenate([rest, stream])
        whole = len(stream) // 8 * 8
        parts.append(np.packbits(stream[:whole], bitorder="little"))
        rest = stream[whole:]
    return np.concatenate([*parts, np.packbits(rest, bitorder="little")])


def unpack_codes(stream: npt.NDArray[np.uint8], bits: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return the codes (n,) of ``bits`` (n,) each that :func:`pack_codes` wrote.

    Raises
    ------
    FileError
        The stream has not the length that ``bits`` asks for.
    """
    widths = bits.astype(np.int64)
    ends = np.cumsum(widths)
    if len(stream) != -(-int(ends[-1]) // 8):
        raise FileError(
            "truncated codes", where="packed", value=len(stream), hint=f"{-(-int(ends[-1]) // 8)} bytes expected"
        )
    codes = np.zeros(len(bits), dtype=np.int32)
    for start in range(0, len(bits), _CHUNK):
        some = slice(start, start + _CHUNK)
        starts, local = (ends - widths)[some], widths[some]
        first = int(starts[0]) // 8
        flat = np.unpackbits(stream[first : -(-int(ends[some][-1]) // 8)], bitorder="little")
        for place in range(int(local.max())):
            long = local > place
            codes[some][long] |= flat[starts[long] + place - 8 * first].astype(np.int32) << place
    return codes


def pack(network: nn.Module, path: str | Path) -> PackedSize:
    """Write a quantized network's weights in their allocated bits; return where the bits of the file go.

    Parameters
    ----------
    network : nn.Module
        As :func:`impq_opt.quantize.quantize` returns it, trained or not.
    path : path
        A safetensors file; it is replaced whole or not at all.

    Raises
    ------
    OptionError, DataError
        As of :func:`packed`.
    FileError
        The file cannot be written.
    """
    data, size = packed(network)
    atomic_write(Path(path), data)
    return size


def packed(network: nn.Module) -> tuple[bytes, PackedSize]:
    """Return the file that :func:`pack` writes, and where its bits go.

    Raises
    ------
    OptionError
        The network has no quantized weight.
    DataError
        It holds what a packed file cannot: a weight that is computed otherwise, or a tensor that is not dense.
    """
    weights = quantized_weights(network)
    if not weights:
        raise OptionError("has no quantized weight", where="pack", hint="quantize it with an allocation first")
    pools, described, methods = _Pools(), [], dict[str, int]()
    sizes = {"scales": 0, "widths": 0, "padding": 0}
    for name, weight in weights.items():
        quantizer, latent = weight.quantizer, weight.latent
        place = methods.setdefault(quantizer.method.spec, len(methods))
        described.append(
            {"name": name, "shape": list(quantizer.shape)}
            | _packed_weight(latent, quantizer, pools)
            | _some(method=place)
        )
        sizes["scales"] += quantizer.side_bits(latent)
        bits = int(np.dot(quantizer.group_bits, quantizer.group_sizes))
        sizes["padding"] += -bits % 8
        sizes["widths"] += 8 * len(quantizer.group_bits) + ("runs" in described[-1]) * 64 * len(quantizer.group_sizes)
    activations = []
    for own in activation_quantizers(network).values():
        state = own.state_dict()
        learned = {part: pools.add(tensor) for part, tensor in state.items()}
        activations.append(_described_activation(own) | _some(learned=learned))
        sizes["scales"] += 8 * sum(tensor.nbytes for tensor in state.values())
    others = _other_state(network)
    about: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSIONS[-1],
        "methods": list(methods),
        "weights": described,
    }
    about |= _some(activations=activations)
    about["others"] = {
        module: {own: pools.add(tensor) for own, tensor in parts.items()} for module, parts in _by_module(others)
    }
    if isinstance(network, TracedModule):
        about["input"] = network.takes
    tensors = pools.joined()
    # One entry, because safetensors writes several in random order.
    data = save(tensors, {"impq-opt": json.dumps(about, separators=(",", ":"))})
    return data, PackedSize(
        codes=storage_bits(network),
        others=8 * sum(t.nbytes for t in others.values()),
        header=8 * (len(data) - sum(t.nbytes for t in tensors.values())),
        **sizes,
    )


def unpack(path: str | Path) -> Unpacked:
    """Read what :func:`pack` wrote.

    Raises
    ------
    FileError
        The file is missing, foreign, truncated, or of a newer version.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("impq-opt", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise FileError("no such file", where=str(path)) from None
    except (OSError, SafetensorError, ValueError):
        raise FileError("cannot be read as safetensors", where=str(path)) from None
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise FileError("is not a packed network", where=str(path), hint="impq-opt pack writes them")
    if about.get("version") not in _VERSIONS:
        raise FileError(
            "unknown version", where=str(path), value=about.get("version"), hint=f"known are {' and '.join(_VERSIONS)}"
        )
    try:
        return _unpacked(about, tensors)
    except FileError as error:
        raise error.within(str(path)) from None
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise FileError("is damaged", where=str(path)) from None


def unpack_into(network: nn.Module, path: str | Path, *, example: Structure | None = None) -> nn.Module:
    """Return a copy of the float ``network`` that computes what the packed quantized network computes, bit for bit.

    Parameters
    ----------
    network : nn.Module
        Left as it is.
    path : path
    example : Tensor, tuple of Tensor or dict of str to Tensor, optional
        Inputs (n, ...) to trace the network with, where activations are quantized; made from what the file tells unless
        given. Files of version 1 tell nothing.

    Raises
    ------
    FileError
        The file cannot be read.
    DataError
        It is of another network, or nothing tells what to trace with.
    """
    unpacked, copied = unpack(path), plain(network)
    _fill(copied, unpacked, path)
    if not unpacked.activations:
        return copied
    traced = traced_for(copied, example, unpacked.input)
    return _with_quantizers(traced, traced.copy(), unpacked)


def unpack_traced(traced: Network, path: str | Path) -> nn.Module:
    """Return what :func:`unpack_into` does, of a network that is traced already, which is left as it is."""
    unpacked, copied = unpack(path), traced.copy()
    _fill(copied, unpacked, path)
    return _with_quantizers(traced, copied, unpacked)


def _with_quantizers(traced: Network, copied: TracedModule, unpacked: Unpacked) -> TracedModule:
    quantizers = {traced.node_of(a.label, old=unpacked.version == "1"): a for a in unpacked.activations}
    return with_activations(copied, quantizers)


def _fill(copied: nn.Module, unpacked: Unpacked, path: str | Path) -> None:
    """Put what a file holds into a plain network."""
    own = copied.state_dict()
    for name, tensor in unpacked.state.items():
        if name not in own or own[name].shape != tensor.shape:
            raise DataError(
                "does not fit the network",
                where=f"{path}: {name}",
                value=list(tensor.shape),
                hint=nearest(name, own) if name not in own else f"the network's has shape {list(own[name].shape)}",
            )
    copied.load_state_dict(versioned(copied, unpacked.state), strict=False)


class _Pools:
    """Tensors behind each other, each in the pool of its type; those of codes and of precisions in their own."""

    def __init__(self, joined: Mapping[str, Tensor] | None = None) -> None:
        self._parts: dict[str, list[Tensor]] = {}
        self._left = dict(joined or {})

    def add(self, tensor: Tensor, pool: str = "") -> list[Any]:
        """Take in a tensor; return what tells it: its shape, behind the name of its type where that is no usual one."""
        kind = str(tensor.dtype).removeprefix("torch.")
        self._parts.setdefault(pool or kind, []).append(tensor.detach().cpu().contiguous().reshape(-1))
        return [*([] if tensor.dtype == _USUAL else [kind]), *tensor.shape]

    def joined(self) -> dict[str, Tensor]:
        """Return the pools."""
        return {pool: torch.cat(parts) for pool, parts in self._parts.items()}

    def take(self, told: list[Any], pool: str = "") -> Tensor:
        """Return the next tensor that :meth:`add` told so."""
        named = bool(told) and isinstance(told[0], str)
        shape, kind = told[named:], told[0] if named else str(_USUAL).removeprefix("torch.")
        count, held = math.prod(shape), self._left[pool or kind]
        if count > len(held):
            raise FileError("is truncated", where=pool or kind, value=len(held))
        self._left[pool or kind] = held[count:]
        return held[:count].clone().reshape(shape)

    def check_taken(self) -> None:
        """Raise FileError where something is left."""
        for pool, held in self._left.items():
            if len(held):
                raise FileError("holds more than is told of", where=pool, value=len(held))


def _packed_weight(latent: Tensor, quantizer: Quantizer, pools: _Pools) -> dict[str, Any]:
    """Put what stands for a weight into pools; return what tells it."""
    codes = quantizer.codes(latent).cpu().numpy().reshape(-1)
    sizes, bits = quantizer.group_sizes, quantizer.group_bits
    about: dict[str, Any] = {"groups": len(bits)}
    pools.add(torch.from_numpy(bits.astype(np.uint8)), "bits")
    if (sizes != sizes[0]).any():
        about["runs"] = pools.add(torch.from_numpy(sizes.copy()))
    pools.add(torch.from_numpy(pack_codes(codes, np.repeat(bits, sizes))), "codes")
    about["side"] = {part: pools.add(tensor) for part, tensor in quantizer.side(latent).items()}
    exact = (torch.float32, torch.float64)
    return about | ({} if latent.dtype in exact else {"dtype": str(latent.dtype).removeprefix("torch.")})


def _named(about: Mapping[str, Any], joined: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file of version 3 under the names that they have in files before."""
    for pool, held in joined.items():
        if str(held.dtype) != f"torch.{'uint8' if pool in ('bits', 'codes') else pool}":
            raise FileError("is of another type than its name says", where=pool, value=str(held.dtype))
    pools, tensors = _Pools(joined), dict[str, Tensor]()
    for entry in about["weights"]:
        name, groups = entry["name"], entry["groups"]
        bits = tensors[f"{name}#bits"] = pools.take(["uint8", groups], "bits")
        runs: npt.NDArray[Any] | int = math.prod(entry["shape"]) // groups
        if "runs" in entry:
            tensors[f"{name}#runs"] = pools.take(entry["runs"])
            runs = tensors[f"{name}#runs"].numpy()
        length = -(-int((bits.numpy().astype(np.int64) * runs).sum()) // 8)
        tensors[f"{name}#codes"] = pools.take(["uint8", length], "codes")
        tensors |= {f"{name}#{part}": pools.take(told) for part, told in entry["side"].items()}
    for entry in about.get("activations", ()):
        tensors |= {f"{entry['label']}@{part}": pools.take(told) for part, told in entry.get("learned", {}).items()}
    for module, parts in about["others"].items():
        tensors |= {f"{module}.{part}".lstrip("."): pools.take(told) for part, told in parts.items()}
    pools.check_taken()
    return tensors


def _by_module(tensors: Mapping[str, Tensor]) -> Iterable[tuple[str, dict[str, Tensor]]]:
    """Return tensors by the module that they are of and their own names."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, own = name.rpartition(".")
        modules.setdefault(module, {})[own] = tensor
    return modules.items()


def _some(**entries: Any) -> dict[str, Any]:
    """Return the entries that are not empty or 0, which readers take them for."""
    return {name: value for name, value in entries.items() if value}


def _described_activation(quantizer: ActivationQuantizer) -> dict[str, Any]:
    """Return what its method makes a quantizer of activations from; what it learned besides is in tensors."""
    about = {"label": quantizer.label, "bits": quantizer.bits, "signed": quantizer.signed}
    if quantizer.method == MidRise.name:
        return about | {"span": quantizer.span}
    return about | {"method": quantizer.method, "range": quantizer.span}


def _activation(entry: Mapping[str, Any], tensors: dict[str, Tensor]) -> ActivationQuantizer:
    method = load_method(entry.get("method", MidRise.name))
    span, label = entry["range" if "method" in entry else "span"], entry["label"]
    quantizer = method.activation(entry["bits"], span, label, signed=entry["signed"])
    quantizer.load_state_dict({part: tensors.pop(f"{label}@{part}") for part in quantizer.state_dict()})
    return quantizer.eval()


def _other_state(network: nn.Module) -> dict[str, Tensor]:
    """Return what is not quantized, without the second names of shared tensors.

    What a quantizer of weights learned is in the codes and the side information that it gives; of activations, beside
    them.
    """
    others: dict[str, Tensor] = {}
    quantized = quantized_weights(network).values()
    written = {id(weight.latent) for weight in quantized} | {id(own) for own in learned_of(network).values()}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in written:
            continue
        if "parametrizations" in name.split("."):
            raise DataError(
                "is computed by a parametrization other than its quantizer, which a packed file cannot hold",
                where=f"network: {name.replace('parametrizations.', '').rpartition('.')[0]}",
                hint="quantize the network that has it, and quantize will make it a plain weight",
            )
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise DataError(
                "cannot be packed: only plain dense tensors with values can",
                where=f"network: {name}",
                value=type(tensor).__name__ if not isinstance(tensor, Tensor) else str(tensor.layout),
            )
        written.add(id(tensor))
        others[name] = tensor.detach().cpu().clone().contiguous()
    return others


def _method(about: Mapping[str, Any], entry: Mapping[str, Any]) -> Method:
    """Return the method that a weight is rounded by."""
    if "methods" in about:
        return load_method(about["methods"][entry.get("method", 0)])
    return load_method(entry["method"]) if "method" in entry else MidRise(*(entry[o] for o in _MID_RISE))


def _parts(name: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the side information of a weight."""
    return [key.removeprefix(f"{name}#") for key in tensors if key.startswith(f"{name}#")]


def _unpacked(about: Mapping[str, Any], tensors: dict[str, Tensor]) -> Unpacked:
    state, widths, weights = {}, {}, {}
    if about["version"] == "3":
        tensors = _named(about, tensors)
    for entry in about["weights"]:
        name, shape = entry["name"], tuple(entry["shape"])
        method = _method(about, entry)
        bits = tensors.pop(f"{name}#bits").numpy()
        runs = tensors.pop(f"{name}#runs", None)
        sizes = np.full(len(bits), math.prod(shape) // len(bits)) if runs is None else runs.numpy()
        spread = np.repeat(bits, sizes)
        codes = torch.from_numpy(unpack_codes(tensors.pop(f"{name}#codes").numpy(), spread)).reshape(shape)
        side = {part: tensors.pop(f"{name}#{part}") for part in _parts(name, tensors)}
        state[name] = method.quantizer(shape, bits, sizes).values(
            codes, side, getattr(torch, entry["dtype"]) if "dtype" in entry else None
        )
        widths[name] = bits
        weights[name] = UnpackedWeight(codes, spread.astype(np.int64).reshape(shape), method.spec)
    activations = tuple(_activation(entry, tensors) for entry in about.get("activations", ()))
    return Unpacked(state | tensors, widths, activations, about.get("input"), about["version"], weights)
