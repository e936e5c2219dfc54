"""A quantized copy of a network from an allocation: parametrized weights, hooked or traced activations."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from impq_opt.errors import AllocationError, DataError, nearest
from impq_opt.groups.arrays import ACTIVATION
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.problem import Problem
from impq_opt.quantize.graph import CallGraph
from impq_opt.quantize.methods import Method, Quantizer, load_method
from impq_opt.quantize.quantizers import ActivationQuantizer
from impq_opt.types import IntArray

__all__ = [
    "QuantizedWeight",
    "activation_quantizers",
    "insert_activation_quantizers",
    "quantize",
    "quantized_weights",
    "state_of",
    "storage_bits",
]


_CHILD = "activation_quantizer"


@dataclass(frozen=True)
class QuantizedWeight:
    """One quantized weight tensor of a network.

    Parameters
    ----------
    name : str
        The parameter's name in the float network.
    latent : Tensor
        The float weight that training moves.
    quantizer : Quantizer
    """

    name: str
    latent: Tensor
    quantizer: Quantizer

    @property
    def value(self) -> Tensor:
        """The quantized weight."""
        with torch.no_grad():
            value: Tensor = self.quantizer(self.latent)
        return value


def quantize(
    network: nn.Module,
    problem: Problem,
    allocation: Allocation | npt.ArrayLike,
    *,
    scheme: Method | str | None = None,
) -> nn.Module:
    """Return a copy of ``network`` whose weights and activations are rounded as allocated, ready to train on.

    The network's own modules are not edited: weights become torch parametrizations, activations forward hooks, or nodes
    of a traced copy where an activation is the output of a function or of a module that is called more than once.

    Parameters
    ----------
    network : nn.Module
    problem : Problem
        As measured on ``network``: a weight label is the name of a parameter (``"conv1.weight"``) or of a module that
        has a weight, its groups are consecutive runs of that weight in C order; an activation label is a name that
        :class:`~impq_opt.quantize.graph.CallGraph` knows, and its range is the span of its quantizer (the clip value of
        a rectifier's output).
    allocation : Allocation, or array of int (G,)
        Precisions of the groups.
    scheme : Method or str, optional
        How all weights are rounded; as the problem says of each (``Problem.grids``) unless given.

    Raises
    ------
    DataError
        The problem's groups are not those of this network.
    AllocationError
        Not one precision per group.
    """
    bits = allocation.bits if isinstance(allocation, Allocation) else np.asarray(allocation)
    if bits.shape != (len(problem),):
        raise AllocationError("must have one precision per group", where="allocation", value=bits.shape)
    kinds = np.zeros(len(problem), dtype=np.int8) if problem.kinds is None else problem.kinds
    copied = copy.deepcopy(network)
    graph, activations = CallGraph(network), []
    for label, groups in _labels(problem):
        if (kinds[groups] == ACTIVATION).any():
            activations.append(_activation_quantizer(graph, problem, groups, bits[groups], label))
        else:
            _parametrize(copied, label, bits[groups], problem.sizes[groups], load_method(scheme or problem.grid(label)))
    return insert_activation_quantizers(copied, activations)


def quantized_weights(network: nn.Module) -> dict[str, QuantizedWeight]:
    """Return the quantized weights of a network by name; a weight shared by several modules comes once."""
    found: dict[str, QuantizedWeight] = {}
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        for name, chain in _chains(module):
            quantizer, latent = chain[0], chain.original
            if isinstance(quantizer, Quantizer) and id(latent) not in seen:
                seen.add(id(latent))
                full = f"{prefix}.{name}" if prefix else name
                found[full] = QuantizedWeight(full, latent, quantizer)
    return found


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Return the activation quantizers of a network by the label of their group."""
    return {module.label: module for module in network.modules() if isinstance(module, ActivationQuantizer)}


def storage_bits(network: nn.Module) -> int:
    """Return the bits that hold the quantized weights: the problem's storage cost, counted on the tensors."""
    return sum(
        int(np.dot(one.quantizer.group_bits, one.quantizer.group_sizes)) for one in quantized_weights(network).values()
    )


def state_of(network: nn.Module, *, latent: bool) -> dict[str, Tensor]:
    """Return the state dict of the float network under a quantized one.

    ``latent=True`` gives the weights that training moves, ``latent=False`` the quantized values. Names are those of the
    float network.
    """
    weights = {id(one.latent): one for one in quantized_weights(network).values()}
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        one = weights.get(id(tensor))
        plain = name.replace(".parametrizations.", ".").removeprefix("parametrizations.").removesuffix(".original")
        if one is None:
            state[name] = tensor.detach()
        else:
            state[plain] = tensor.detach() if latent else one.value
    return state


def insert_activation_quantizers(network: nn.Module, quantizers: Iterable[ActivationQuantizer]) -> nn.Module:
    """Return ``network``, edited in place or traced, with each quantizer after the tensor that its label names."""
    quantizers = tuple(quantizers)
    if not quantizers:
        return network
    graph = CallGraph(network)
    by_node = {}
    for quantizer in quantizers:
        module = graph.module_called_once(quantizer.label)
        if module is None:
            by_node[quantizer.label] = quantizer
        else:
            module.add_module(_CHILD, quantizer)
            module.register_forward_hook(_quantize_output)
    if not by_node:
        return network
    traced = graph.traced
    if traced is None:
        raise graph.unknown(next(iter(by_node)))
    for number, (label, quantizer) in enumerate(by_node.items()):
        node = graph.node(label)
        if node is None:
            raise graph.unknown(label)
        name = f"{_CHILD}_{number}"
        traced.add_submodule(name, quantizer)
        with traced.graph.inserting_after(node):
            after = traced.graph.call_module(name, (node,))
        node.replace_all_uses_with(after, delete_user_cb=lambda user, keep=after: user is not keep)  # type: ignore[misc]
    traced.recompile()
    return traced


def _quantize_output(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    value: Tensor = getattr(module, _CHILD)(output)
    return value


def _labels(problem: Problem) -> Iterator[tuple[str, slice]]:
    offsets = problem.names.offsets
    for place, label in enumerate(problem.names.labels):
        yield label, slice(int(offsets[place]), int(offsets[place + 1]))


def _activation_quantizer(
    graph: CallGraph, problem: Problem, groups: slice, bits: npt.NDArray[np.generic], label: str
) -> ActivationQuantizer:
    if len(bits) != 1:
        raise DataError("an activation tensor has one precision", where=label, value=len(bits))
    span = math.nan if problem.ranges is None else float(problem.ranges[groups.start])
    if not (math.isfinite(span) and span > 0):
        span = graph.default_clip(label)
    return ActivationQuantizer(float(bits[0]), span, label, signed=not graph.is_rectified(label))


def _parametrize(
    network: nn.Module,
    label: str,
    bits: npt.NDArray[np.generic],
    sizes: IntArray,
    method: Method,
) -> None:
    """Put a quantizer on the weight that ``label`` names, in every module that shares it."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    weight = parameters.get(label, parameters.get(f"{label}.weight"))
    if weight is None:
        raise DataError("no such weight in the network", where="problem", value=label, hint=nearest(label, parameters))
    if sizes.sum() != weight.numel():
        raise DataError(
            "the groups do not add up to the weight",
            where=f"problem: {label}",
            value=int(sizes.sum()),
            hint=f"the network's weight has {weight.numel()} elements",
        )
    quantizer = method.quantizer(weight.shape, bits, sizes).to(weight.device)
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter is weight:
                parametrize.register_parametrization(module, name, quantizer)


def _chains(module: nn.Module) -> Iterator[tuple[str, parametrize.ParametrizationList]]:
    if parametrize.is_parametrized(module):
        yield from module.parametrizations.items()  # type: ignore[union-attr, operator]
