"""A quantized copy of a network from an allocation: parametrized weights, quantizers behind calls of its graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from impq_opt.data.batch import Structure, together
from impq_opt.errors import AllocationError, DataError
from impq_opt.problem.allocation import Allocation
from impq_opt.problem.coded import code_bits
from impq_opt.problem.problem import Problem
from impq_opt.quantize.methods import FLOAT_BITS, ActivationQuantizer, Method, Quantizer, load_method
from impq_opt.quantize.methods.base import QuantizedWeight
from impq_opt.quantize.origin import check_activations, check_weights, labels_of, weight_of
from impq_opt.tracing.clips import clip_of
from impq_opt.tracing.example import example_of
from impq_opt.tracing.graph import Network
from impq_opt.tracing.module import TracedModule
from impq_opt.tracing.nodes import attribute_of
from impq_opt.tracing.plain import plain
from impq_opt.tracing.trace import trace
from impq_opt.types import IntArray

__all__ = [
    "WeightSize",
    "activation_quantizers",
    "clips_by_norms",
    "learned_of",
    "needs_tracing",
    "quantize",
    "quantize_traced",
    "quantized_weights",
    "state_of",
    "storage_bits",
    "traced_for",
    "weight_size",
    "with_activations",
]


_CHILD = "activation_quantizer"


def quantize(
    network: nn.Module,
    problem: Problem,
    allocation: Allocation | npt.ArrayLike,
    *,
    scheme: Method | str | None = None,
    example: Structure | None = None,
) -> nn.Module:
    """Return a copy of ``network`` whose weights and activations are rounded as allocated, ready to train on.

    Weights become torch parametrizations. Where no activation is quantized, the copy has the network's own modules.
    Else it is the network as :func:`~impq_opt.tracing.trace.trace` sees it: parameters, buffers and modes have their
    names and places, containers stand for modules, and quantizers are behind the very calls that were measured.

    Parameters
    ----------
    network : nn.Module
        Left as it is. Wrappers are taken off, and weights that are computed (weight norm, masks) become plain ones.
    problem : Problem
        As measured on ``network``: a weight label is the name of a parameter (``"conv1.weight"``) or of a module that
        has a weight, its groups are consecutive runs of that weight in C order; an activation label is the name of a
        call, and its range is the span of its quantizer (the clip value of a rectifier's output), or where a learned
        one begins.
    allocation : Allocation, or array of int (G,)
        Precisions of the groups. A weight or an activation of 32 bits stays as it is, in float.
    scheme : Method or str, optional
        How all weights and activations are rounded; as the problem says of each (``Problem.grids``) unless given.
    example : Tensor, tuple of Tensor or dict of str to Tensor, optional
        Inputs (n, ...) to trace the network with; made from the problem's provenance unless given.

    Raises
    ------
    DataError
        The problem's groups are not those of this network, or it has activations and nothing tells what to trace with.
    AllocationError
        Not one precision per group.
    """
    bits = _bits(problem, allocation)
    if not needs_tracing(problem, bits):
        copied = plain(network)
        _parametrize_all(copied, problem, bits, scheme)
        return copied
    return quantize_traced(traced_for(network, example, problem.provenance.get("input")), problem, bits, scheme=scheme)


def quantize_traced(
    network: Network, problem: Problem, allocation: Allocation | npt.ArrayLike, *, scheme: Method | str | None = None
) -> TracedModule:
    """Return what :func:`quantize` does, of a network that is traced already, which is left as it is."""
    bits = _bits(problem, allocation)
    check_activations(problem, network.call_names())
    copied = network.copy()
    _parametrize_all(copied, problem, bits, scheme)
    quantizers = [
        _activation_quantizer(network, problem, groups, bits[groups], label, load_method(scheme or problem.grid(label)))
        for label, groups in labels_of(problem, weights=False)
        if bits[groups][0] != FLOAT_BITS
    ]
    return with_activations(copied, {network.node_of(quantizer.label): quantizer for quantizer in quantizers})


def needs_tracing(problem: Problem, bits: npt.NDArray[np.generic]) -> bool:
    """Return whether an activation is quantized, whose place in the network only its graph tells."""
    return not bool((problem.weights() | (bits == FLOAT_BITS)).all())


def traced_for(network: nn.Module, example: Structure | None, described: Any) -> Network:
    """Return the network traced with an example, or with one made from what is ``described``, on its own device.

    Raises
    ------
    DataError
        There is neither.
    """
    if example is None and described is None:
        raise DataError(
            "nothing tells what the network takes, so it cannot be traced to find its activations",
            where="problem",
            hint="give example=, a batch of its inputs; measure writes what that is into the problem",
        )
    tensors = [*network.parameters(), *network.buffers()]
    x = example_of(described) if example is None else together(example)
    return trace(network, x.to(tensors[0].device) if tensors else x)


def _bits(problem: Problem, allocation: Allocation | npt.ArrayLike) -> npt.NDArray[np.generic]:
    if isinstance(allocation, Allocation):
        return code_bits(problem, allocation._need())
    bits = np.asarray(allocation)
    if bits.shape != (len(problem),):
        raise AllocationError("must have one precision per group", where="allocation", value=bits.shape)
    return bits


def _parametrize_all(
    network: nn.Module, problem: Problem, bits: npt.NDArray[np.generic], scheme: Method | str | None
) -> None:
    check_weights(problem, network)
    for label, groups in labels_of(problem, weights=True):
        floats = bits[groups] == FLOAT_BITS
        if floats.all():
            continue
        if floats.any():
            raise AllocationError(
                "a weight stays in float whole, or not at all", where=label, value=f"{int(floats.sum())} of its groups"
            )
        method = load_method(scheme or problem.grid(label))
        _parametrize(network, label, bits[groups], problem.sizes[groups], method)


def quantized_weights(network: nn.Module) -> dict[str, QuantizedWeight]:
    """Return the quantized weights of a network by name; a weight shared by several modules comes once."""
    weights: dict[str, QuantizedWeight] = {}
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        for name, chain in _chains(module):
            quantizer = chain[0]
            if len(chain) != 1 or not isinstance(quantizer, Quantizer):
                continue
            latent = chain.original
            if id(latent) not in seen:
                seen.add(id(latent))
                full = f"{prefix}.{name}" if prefix else name
                weights[full] = QuantizedWeight(full, latent, quantizer)
    return weights


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Return the activation quantizers of a network by the label of their group."""
    return {module.label: module for module in network.modules() if isinstance(module, ActivationQuantizer)}


def clips_by_norms(network: nn.Module) -> dict[str, float]:
    """Return where the rectifiers of a quantized network end now, by label, as their batch-norms say.

    It is what :func:`impq_opt.tracing.clips.clip_of` says; rectifiers of which it says nothing are left out.
    """
    if not isinstance(network, TracedModule):
        return {}

    def tensor(argument: object) -> Tensor | None:
        held = isinstance(argument, fx.Node) and argument.op == "get_attr"
        return attribute_of(network, str(argument.target)) if held else None  # type: ignore[attr-defined]

    clips: dict[str, float] = {}
    for node in network.traced_graph.nodes:
        quantizer = network._modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(quantizer, ActivationQuantizer) and not quantizer.signed:
            clip, rule = clip_of(node.args[0], tensor)
            if rule:
                clips[quantizer.label] = clip
    return clips


def storage_bits(network: nn.Module) -> int:
    """Return the bits that hold the quantized weights: the problem's storage cost, counted on the tensors."""
    return sum(
        int(np.dot(weight.quantizer.group_bits, weight.quantizer.group_sizes))
        for weight in quantized_weights(network).values()
    )


@dataclass(frozen=True)
class WeightSize:
    """What the weights of a network take, in bits; batch-norms and biases aside.

    Parameters
    ----------
    elements : int
        All weights of two dimensions and more.
    levels : float
        What the quantized ones say: log2 of the number of their levels each, 1.58 bits for three.
    codes : int
        What their codes take in a packed file: 2 bits for three levels.
    side : int
        Scales and codebooks.
    floats : int
        Weights that are not quantized.
    """

    elements: int
    levels: float
    codes: int
    side: int
    floats: int

    @property
    def effective(self) -> float:
        """Mean bits of a weight, what stays in float and side information counted (``B_w,eff``)."""
        return (self.levels + self.side + self.floats) / self.elements

    @property
    def packed(self) -> float:
        """The same with codes as they are in a packed file."""
        return (self.codes + self.side + self.floats) / self.elements


def weight_size(network: nn.Module) -> WeightSize:
    """Return what the weights of a quantized network take."""
    quantized = quantized_weights(network)
    elements, levels, side = 0, 0.0, 0
    for weight in quantized.values():
        own = weight.quantizer
        elements += weight.latent.numel()
        levels += sum(
            own.method.effective_bits(int(bits)) * float(own.group_sizes[own.group_bits == bits].sum())
            for bits in np.unique(own.group_bits)
        )
        side += own.side_bits(weight.latent)
    own_tensors = {id(weight.latent) for weight in quantized.values()}
    own_tensors |= {id(tensor) for tensor in learned_of(network).values()}
    floats = [p for p in network.parameters() if p.ndim > 1 and id(p) not in own_tensors]
    return WeightSize(
        elements + sum(p.numel() for p in floats),
        levels,
        storage_bits(network),
        side,
        sum(8 * p.nbytes for p in floats),
    )


def learned_of(network: nn.Module) -> dict[str, Tensor]:
    """Return what the quantizers of a network keep besides its weights, the very tensors, by their names in its state.

    A weight that several modules share has its quantizer's tensors under the names of each.
    """
    quantizers = [weight.quantizer for weight in quantized_weights(network).values()]
    kept = [*quantizers, *activation_quantizers(network).values()]
    own = {id(tensor) for quantizer in kept for tensor in quantizer.state_dict(keep_vars=True).values()}
    return {name: tensor for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) in own}


def state_of(network: nn.Module, *, latent: bool) -> dict[str, Tensor]:
    """Return the state dict of the float network under a quantized one.

    ``latent=True`` gives the weights that training moves, ``latent=False`` the quantized values. Names are those of the
    float network; what quantizers learn besides has no place in it.
    """
    weights = {id(one.latent): one for one in quantized_weights(network).values()}
    learned = learned_of(network)
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        weight = weights.get(id(tensor))
        plain = name.replace(".parametrizations.", ".").removeprefix("parametrizations.").removesuffix(".original")
        if name in learned:
            continue
        if weight is None:
            state[name] = tensor.detach()
        else:
            state[plain] = tensor.detach() if latent else weight.value
    return state


def with_activations(module: TracedModule, quantizers: Mapping[str, ActivationQuantizer]) -> TracedModule:
    """Put quantizers behind nodes of a traced module, by their names; return the module, which is changed.

    They are in its mode, and where its tensors are.
    """
    graph = module.traced_graph
    nodes = {node.name: node for node in graph.nodes}
    device = next((tensor.device for part in (module.parameters(), module.buffers()) for tensor in part), None)
    for number, (name, quantizer) in enumerate(quantizers.items()):
        module._modules[f"{_CHILD}_{number}"] = quantizer.to(device).train(module.training)
        with graph.inserting_after(nodes[name]):
            after = graph.call_module(f"{_CHILD}_{number}", (nodes[name],))
        nodes[name].replace_all_uses_with(after, delete_user_cb=lambda user, own=after: user is not own)
    graph.lint()
    module.recompile()
    return module


def _activation_quantizer(
    network: Network, problem: Problem, groups: slice, bits: npt.NDArray[np.generic], label: str, method: Method
) -> ActivationQuantizer:
    if len(bits) != 1:
        raise DataError("an activation tensor has one precision", where=label, value=len(bits))
    node = network.node_of(label)
    span = math.nan if problem.ranges is None else float(problem.ranges[groups.start])
    if not (math.isfinite(span) and span > 0):
        span = network.default_clip(node)
    signed = problem.provenance.get("signed")
    negative = label in signed if isinstance(signed, (list, tuple)) else not network.is_rectified(node)
    return method.activation(float(bits[0]), span, label, signed=negative)


def _parametrize(
    network: nn.Module,
    label: str,
    bits: npt.NDArray[np.generic],
    sizes: IntArray,
    method: Method,
) -> None:
    """Put a quantizer on the weight that ``label`` names, in every module that shares it."""
    weight = weight_of(label, dict(network.named_parameters(remove_duplicate=False)))
    assert weight is not None  # of a problem that was checked
    quantizer = method.quantizer(weight.shape, bits, sizes).to(weight.device)
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter is weight:
                parametrize.register_parametrization(module, name, quantizer)


def _chains(module: nn.Module) -> Iterator[tuple[str, parametrize.ParametrizationList]]:
    if parametrize.is_parametrized(module):
        yield from module.parametrizations.items()  # type: ignore[union-attr, operator]
