"""Data made to fit a network, or the reason why it does not: types, names of inputs, channels, tokens."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from impq_opt.data.batch import Several, parts_of, prepare
from impq_opt.data.calling import call
from impq_opt.data.dataset import Dataset
from impq_opt.data.labels import check_labels
from impq_opt.data.pictures import Pictures
from impq_opt.errors import DataError, first_line
from impq_opt.networks.evidence import notes_on
from impq_opt.networks.own import unwrapped

__all__ = ["fitted"]


def fitted(network: nn.Module, data: Dataset, *, rows: Tensor | None = None, labels: str = "") -> Dataset:
    """Return ``data`` as the network takes it, with notes on what seems wrong with it.

    Floats get the network's type. Whole numbers stay whole where the network runs on them, as on tokens, and become
    floats where it does not. Of inputs by keyword, those that the network's ``forward`` does not have are left out.

    Parameters
    ----------
    network : nn.Module
        Run in eval mode, and left as it was.
    data : Dataset
    rows : Tensor (m,) int64, optional
        The samples that tell; the first ones unless given.
    labels : str, optional
        What labels are needed for; for nothing unless given.

    Raises
    ------
    DataError
        The network does not run on these data; or labels are missing or wrong where they are needed.
    """
    network = unwrapped(network)  # a compiled one would be compiled for this
    if isinstance(network, torch.jit.ScriptModule):  # has no layers to look at; tracing says so
        return data
    rows = torch.arange(len(data)) if rows is None else rows
    if labels and data.rows(rows[:1])[1] is None:
        raise DataError("has no labels, which are needed", where=f"data {data.name}", hint=f"for {labels}")
    with _evaluated(network), torch.no_grad():
        data = _typed(network, _with_its_keywords(network, data, rows), rows)
        classes, notes = notes_on(network, data, rows)
    if labels and classes is not None:
        data = _read(data, classes=classes)
        if data.labels is not None:
            check_labels(data.labels, classes, f"data {data.name}")
    return replace(data, notes=tuple(dict.fromkeys((*data.notes, *notes))))


@contextlib.contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _with_its_keywords(network: nn.Module, data: Dataset, rows: Tensor) -> Dataset:
    """Leave out the inputs by keyword that ``forward`` does not have; raise where it lacks some."""
    example, _ = data.rows(rows[:1])
    inputs = prepare(example, torch.device("cpu"))
    args, kwargs = (inputs.args, inputs.kwargs) if isinstance(inputs, Several) else ((inputs,), {})
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # of compiled code, which cannot be asked
        return data
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    signature = inspect.Signature(plain)  # as people call it; types would hide the names
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    strange = [name for name in kwargs if name not in signature.parameters]
    if strange and len(kwargs) == 1 and isinstance(data.inputs, Mapping):  # one input needs no name
        return _with_its_keywords(network, replace(data, inputs=data.inputs[strange[0]]), rows)
    if strange and inspect.Parameter.VAR_KEYWORD not in kinds and len(strange) < len(kwargs):
        kept = tuple(name for name in kwargs if name not in strange)
        note = f"the network's forward does not take {', '.join(map(repr, strange))}, left out"
        reading = replace(data.reading, keywords=kept)
        data = replace(data, reading=reading, notes=(*data.notes, note))
        kwargs = {name: kwargs[name] for name in kept}
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise DataError(
            f"its forward takes {signature}, which does not fit the data's inputs ({error})", where="network",
            value=list(parts_of(example)) if kwargs else len(args),
            hint="give several inputs as a dict by keyword, or as ((first, second), labels)",
        ) from None  # fmt: skip
    return data


def _typed(network: nn.Module, data: Dataset, rows: Tensor) -> Dataset:
    """Return the data in the types that the network runs on, with the number of tokens that it embeds."""
    floats = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    parts = parts_of(data.rows(rows[:2])[0])
    types = {name: floats for name, part in parts.items() if part.is_floating_point() and part.dtype != floats}
    whole = {name for name, part in parts.items() if not (part.is_floating_point() or part.is_complex())}
    as_whole = {name: torch.int64 for name in whole if parts[name].dtype not in (torch.bool, torch.int64)}
    first: DataError | None = None
    for attempt in (types | as_whole, types | dict.fromkeys(whole, floats)):
        typed = _read(data, types=attempt)
        example = prepare(typed.rows(rows[:2])[0], home)
        watch = _Watch(network)
        try:
            with watch:
                call(network, example)
        except Exception as error:  # whatever the layers raise, the inputs do not fit them
            for name, part in parts_of(example.inputs if isinstance(example, Several) else example).items():
                _read(typed, tokens=watch.embedded(name, part)).rows(rows[:2])  # tells of an unknown token
            first = first or _misfit(example, watch, error, folder=isinstance(data.inputs, Pictures))
            if not whole:
                break
        else:
            tokens: dict[str, int] = {}
            for name, part in parts_of(example.inputs if isinstance(example, Several) else example).items():
                tokens |= watch.embedded(name, part)
            return _read(typed, tokens=tokens)
    assert first is not None
    raise first


def _read(data: Dataset, **how: Any) -> Dataset:
    return replace(data, reading=replace(data.reading, **how))


class _Watch:
    """Which layers are entered, with what: the last one is where a call broke off."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.last: tuple[str, nn.Module, Tensor] | None = None
        self._embedded: list[tuple[int, int]] = []  # address of what is looked up, and in how many rows

    def __enter__(self) -> None:
        self._hooks = [
            module.register_forward_pre_hook(self._entered(name))
            for name, module in self.network.named_modules()
            if not any(True for _ in module.children())
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _entered(self, name: str) -> Any:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                self.last = (name, module, args[0])
                if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                    self._embedded.append((args[0].data_ptr(), module.num_embeddings))

        return see

    def embedded(self, name: str, part: Tensor) -> dict[str, int]:
        """Return how many tokens there are for an input that an embedding was given as it is, by its name."""
        sizes = [size for address, size in self._embedded if address == part.data_ptr()]
        return {name: min(sizes)} if sizes and not part.is_floating_point() else {}


def _misfit(example: Tensor | Several, watch: _Watch, error: Exception, *, folder: bool = False) -> DataError:
    """Return the sentence that says what does not fit."""
    parts = parts_of(example.inputs if isinstance(example, Several) else example)
    shown = ", ".join(f"{name or 'samples'} of shape {tuple(x.shape[1:])}, {x.dtype}" for name, x in parts.items())
    hint = "is it the network's own data, with its number of channels?"
    first = first_line(error)
    if watch.last is not None:
        name, module, got = watch.last
        told = _layer_hint(name, module, got)
        if told:
            first, hint = f"{tuple(got.shape)} at {name!r}", told
    if folder:
        hint += "; a folder's pictures are given as three colours, normalised as ImageNet's; others go into an .npz"
    return DataError(f"does not take {shown}", where="network", value=first, hint=hint)


def _layer_hint(name: str, module: nn.Module, got: Tensor) -> str:
    """Return what a layer would take instead of what it got; "" where nothing can be said."""
    shape = tuple(got.shape)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _convolution_hint(name, module, shape)
    if isinstance(module, nn.Linear) and shape[-1] != module.in_features:
        said = f"{name!r} takes {module.in_features} features"
        if math.prod(shape[1:]) == module.in_features:
            return f"{said}: give samples flattened, (n, {module.in_features})"
        return f"{said} and gets {shape[-1]}: are samples of the size it is made for?"
    if isinstance(module, nn.Embedding) and got.is_floating_point():
        return f"{name!r} embeds tokens, which are whole numbers"
    return ""


def _convolution_hint(name: str, module: nn.modules.conv._ConvNd, shape: tuple[int, ...]) -> str:
    wanted, dimensions = module.in_channels, len(module.kernel_size)
    if len(shape) == dimensions + 1 and wanted == 1:
        return f"{name!r} takes (n, 1, ...): add the dimension of channels, as in images[:, None]"
    if len(shape) != dimensions + 2 or shape[1] == wanted:
        return ""
    if shape[-1] == wanted:
        order = (0, dimensions + 1, *range(1, dimensions + 1))
        return f"{name!r} takes {wanted} channels, which come last here: give images.transpose{order}"
    kinds = {1: "grey", 3: "colour", 4: "colour with transparency"}
    said = f" ({kinds[wanted]}; these are {kinds[shape[1]]})" if {wanted, shape[1]} <= set(kinds) else ""
    return f"{name!r} takes {wanted} channels, and these samples have {shape[1]}{said}"
