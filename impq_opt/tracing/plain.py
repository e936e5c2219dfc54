"""A copy of a network with plain weights: wrappers taken off, weights that are computed put in as what they come to."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from impq_opt.errors import DataError, first_line
from impq_opt.networks.own import unwrapped

__all__ = ["merged_names", "plain"]


def plain(network: nn.Module) -> nn.Module:
    """Return a copy of a network that can be traced, and whose parameters are what its layers multiply by.

    What ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` wrap is taken out, wherever it stands.
    Weight and spectral norms, pruning masks and all other parametrizations are computed once, as they are in eval
    mode, and become plain parameters. Tied parameters stay tied, training modes stay, and so does the network.

    Raises
    ------
    DataError
        The network has no weights that could be quantized: TorchScript, quantized already, not initialized.
    """
    network = unwrapped(network)
    _refuse(network)
    try:
        copied = copy.deepcopy(network, {id(t): t.detach().clone() for t in _computed(network)})
    except Exception as error:  # copying runs code of the user's modules, which may raise anything
        raise DataError(
            "cannot be copied",
            where="network",
            value=first_line(error),
            hint="copy.deepcopy must work on it",
        ) from error
    for module in list(copied.modules()):
        module._compiled_call_impl = None  # what nn.Module.compile left
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = unwrapped(child)
    modes = {module: module.training for module in copied.modules()}
    copied.eval()
    with torch.no_grad():
        _merge(copied)
    for module, mode in modes.items():
        module.training = mode
    return copied


def merged_names(network: nn.Module, copied: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's parameters that :func:`plain` has computed weights from, and no longer has."""
    own = {name for name, _ in copied.named_parameters(remove_duplicate=False)}
    names = (name.replace("_orig_mod.", "") for name, _ in unwrapped(network).named_parameters())
    return tuple(name for name in names if name not in own)


def _refuse(network: nn.Module) -> None:
    """Raise where the layers hold something else than weights of floating point."""
    for path, module in network.named_modules():
        where = f"network: {path}" if path else "network"
        if isinstance(module, torch.jit.ScriptModule):
            raise DataError(
                "is TorchScript, compiled code without layers to quantize",
                where=where,
                hint="build the network from its Python class and load its state dict",
            )
        if ".quantized" in type(module).__module__ and type(module).__module__.startswith("torch."):
            raise DataError(
                "is quantized already",
                where=where,
                value=type(module).__name__,
                hint="give the float network that it was made from",
            )
        for name, tensor in module.named_parameters(recurse=False):
            if isinstance(tensor, nn.parameter.UninitializedParameter):
                raise DataError(
                    "is not initialized: a lazy layer that has not seen its first batch",
                    where=where,
                    hint="call the network once on a batch of its data",
                )
            if tensor.is_meta:
                raise DataError("has no values: it is on the device 'meta'", where=f"network: {path}.{name}")
            if type(tensor.data) is not Tensor:
                raise DataError(
                    "is not a plain tensor, but of a library that quantizes or shards",
                    where=f"network: {path}.{name}",
                    value=type(tensor.data).__name__,
                    hint="give the float network that it was made from",
                )


def _computed(network: nn.Module) -> Iterator[Tensor]:
    """Yield tensors that a call left on the modules with a history of gradients: they cannot be copied as they are."""
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)


def _merge(network: nn.Module) -> None:
    """Put plain parameters where weights are computed."""
    merged: dict[tuple[int, ...], nn.Parameter] = {}  # by what they are computed from
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _deparametrize(module, merged)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)


def _deparametrize(module: nn.Module, merged: dict[tuple[int, ...], nn.Parameter]) -> None:
    """Take all parametrizations off; torch's own function would take them off the class, which the original shares."""
    chains: dict[str, nn.Module] = dict(module.parametrizations.items())  # type: ignore[operator, union-attr]
    values = {}
    for name, chain in chains.items():
        trains = any(part.requires_grad for part in chain.parameters())
        key = tuple(id(part) for part in (*chain.parameters(), *chain.buffers(), *chain.children()))
        value = getattr(module, name).detach().clone()
        values[name] = merged.setdefault(key, nn.Parameter(value, trains))
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, value)
