"""Allocators of others, as problems: their scores of one network on a grid of ours, to be solved as ours are.

Each takes a network with data, a grid, its widths, and how many samples of which draw, as the allocators of
``accuracy.py`` do, and runs the tool itself: the grid is put where the tool rounds weights, and scores are taken where
the tool hands them to its own search. A tool scores with its own defaults otherwise.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from _subjects import Subject
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from impq_opt import Problem
from impq_opt.calibrate import drawn
from impq_opt.data.batch import prepare
from impq_opt.data.torchvision import torchvision_module
from impq_opt.groups.damage import DamageTable
from impq_opt.groups.interactions import Pairs
from impq_opt.measure import structure_of, trace
from impq_opt.quantize import load_method

Allocator = Callable[[Subject, str, Sequence[float], int, int], Problem]

SWEPT = 128  # samples of scores that run the network for each layer and precision
_BATCH = 32
_PAIRED = 64  # samples that pairs of layers are measured on
_FINE = 4  # bits above which a layer adds nothing to what another one does: as good as float


def unmeasured(part: Subject, grid: str, widths: Sequence[float]) -> Problem:
    """Return the problem of a grid without a measurement."""
    return structure_of(part[0], part[1].subset(torch.arange(64)), grid=grid, bits=widths).revise(weights_only=True)


def seen(part: Subject, samples: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return inputs and labels of the samples that calibration takes, in batches."""
    inputs, labels = part[1].rows(drawn(part[1], samples, seed).rows)
    return list(zip(prepare(inputs, torch.device("cpu")).split(_BATCH), labels.split(_BATCH), strict=True))


def _damaged(problem: Problem, scores: Mapping[str, Mapping[float, float]]) -> Problem:
    """Return the problem with scores by the name of the weight and the precision."""
    table = [[scores[name][float(bits)] for bits in problem.candidates.of(g)] for g, name in enumerate(problem.names)]
    return replace(problem, damage=DamageTable(np.array(table, dtype=np.float64)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the tools' notes and progress to themselves."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)


# -- NVIDIA ModelOpt -------------------------------------------------------------------------------------------------


def modelopt(method: str) -> Allocator:
    """Return auto_quantize's scores: ``gradient``, squared gradients times squared shifts of outputs; or ``kl_div``."""

    def scored(part: Subject, grid: str, widths: Sequence[float], samples: int, seed: int) -> Problem:
        with quiet():
            torchvision_module()
            import modelopt.torch.quantization as mtq
            from modelopt.torch.quantization.nn.modules import tensor_quantizer
        rounding, known = load_method(grid), {}

        def on_grid(weight: Tensor, quantizer: Any) -> Tensor:
            bits = quantizer.backend_extra_args["bits"]
            key = quantizer, bits  # there is one for each layer and format
            if key not in known:
                known[key] = _rounded(weight.detach(), rounding, bits)
            return known[key]

        tensor_quantizer.register_quant_backend("impq-opt", on_grid)
        formats = [weights_format(bits, backend="impq-opt", backend_extra_args={"bits": int(bits)}) for bits in widths]
        batches = seen(part, samples if method == "gradient" else min(samples, SWEPT), seed)
        with quiet():
            state = auto_quantize(mtq, part[0], formats, batches, method, max(widths))[1]
        return _damaged(unmeasured(part, grid, widths), _modelopt_scores(state))

    return scored


def weights_format(bits: float, **more: Any) -> dict[str, Any]:
    """Return ModelOpt's format of weights with a scale a kernel, all else in float."""
    weights = {"num_bits": int(bits), "axis": 0, **more}
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": weights, "enable": True},
        ],
        "algorithm": "max",
    }


def auto_quantize(
    mtq: Any,
    network: nn.Module,
    formats: list[dict[str, Any]],
    batches: list[tuple[Tensor, Tensor]],
    method: str,
    bits: float,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return ModelOpt's quantized network and its search state."""
    more = {"loss_func": lambda out, batch: cross_entropy(out, batch[1])} if method == "gradient" else {}
    return mtq.auto_quantize(  # type: ignore[no-any-return]
        copy.deepcopy(network), constraints={"effective_bits": float(bits)}, quantization_formats=formats,
        data_loader=batches, forward_step=lambda model, batch: model(batch[0]), method=method,
        num_calib_steps=len(batches), num_score_steps=len(batches), verbose=False, **more,
    )  # fmt: skip


def _modelopt_scores(state: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    scores = {}
    for row in state["candidate_stats"].values():
        (module,) = row["module_names"]
        told = zip(row["formats"], row["scores"], strict=True)
        scores[module] = {16.0 * recipe.compression: float(score) for recipe, score in told}
    return scores


# -- Sony MCT --------------------------------------------------------------------------------------------------------


def mct(part: Subject, grid: str, widths: Sequence[float], samples: int, seed: int) -> Problem:
    """Return the distances of outputs all over the network, as MCT's mixed precision hands them to its solver.

    They are of 32 samples, as it usually takes.
    """
    with quiet():
        torchvision_module()
        from model_compression_toolkit.core.common.mixed_precision import mixed_precision_search_manager as manager
        from model_compression_toolkit.core.pytorch.mixed_precision import configurable_weights_quantizer as module
    rounding, found = load_method(grid), {}

    def candidates(node_q_cfg: Any, float_weights: Any, fw_tensor_convert_func: Any, kernel_attr: str) -> list[Tensor]:
        weight = fw_tensor_convert_func(float_weights)
        return [_rounded(weight, rounding, bits) for bits in _mct_widths(node_q_cfg, kernel_attr)]

    def heard(scores: Mapping[Any, Sequence[float]], *_: Any) -> None:
        for node, row in scores.items():
            bits = _mct_widths(node.candidates_quantization_cfg, "weight")
            found[node.name.removesuffix("_bn")] = dict(zip(bits, map(float, row), strict=True))
        raise _HeardError

    with (
        quiet(),
        patch.object(module, "init_quantized_weights", candidates),
        patch.object(manager, "MixedPrecisionIntegerLPSolver", heard),
        contextlib.suppress(_HeardError),
    ):
        mct_quantized(part, widths, min(samples, SWEPT), seed, (min(widths) + max(widths)) / 2)
    problem = unmeasured(part, grid, widths)
    # MCT names nodes after modules, with _ for dots, and _bn behind those that a batch-norm was folded into.
    return _damaged(problem, {name: found[name.replace(".", "_")] for name in problem.names})


class _HeardError(Exception):
    """MCT has told its scores, and need not go on."""


def _mct_widths(candidates: Any, kernel: str) -> list[float]:
    return [float(c.weights_quantization_cfg.get_attr_config(kernel).weights_n_bits) for c in candidates]


def mct_quantized(
    part: Subject, widths: Sequence[float], samples: int, seed: int, bits: float
) -> tuple[nn.Module, Any]:
    """Return MCT's network of so many mean bits, and what it tells of it.

    Weights are symmetric with a scale a kernel, activations are in float.
    """
    import model_compression_toolkit as toolkit
    from mct_quantizers import QuantizationMethod
    from model_compression_toolkit.core.common.mixed_precision.search_methods import linear_programming
    from model_compression_toolkit.target_platform_capabilities.schema import mct_current_schema as schema

    def attribute(width: int, *, on: bool) -> Any:
        return schema.AttributeQuantizationConfig(
            weights_quantization_method=QuantizationMethod.SYMMETRIC, weights_n_bits=width,
            weights_per_channel_threshold=True, enable_weights_quantization=on,
        )  # fmt: skip

    def operation(kernel: Any) -> Any:
        return schema.OpQuantizationConfig(
            default_weight_attr_config=attribute(8, on=False), attr_weights_configs_mapping=kernel,
            activation_quantization_method=QuantizationMethod.POWER_OF_TWO, activation_n_bits=8,
            supported_input_activation_n_bits=8, enable_activation_quantization=False, quantization_preserving=False,
            fixed_scale=None, fixed_zero_point=None, simd_size=32, signedness=schema.Signedness.AUTO,
        )  # fmt: skip

    mixed = [operation({"kernel_attr": attribute(int(width), on=True)}) for width in sorted(widths, reverse=True)]
    options = schema.QuantizationConfigOptions(quantization_configurations=tuple(mixed), base_config=mixed[0])
    sets = [
        schema.OperatorsSet(name=name, qc_options=options)
        for name in (schema.OperatorSetNames.CONV, schema.OperatorSetNames.DEPTHWISE_CONV,
                     schema.OperatorSetNames.FULLY_CONNECTED)
    ]  # fmt: skip
    capabilities = schema.TargetPlatformCapabilities(
        default_qco=schema.QuantizationConfigOptions(quantization_configurations=(operation({}),)),
        tpc_minor_version=1, tpc_patch_version=0, tpc_platform_type="weights", operator_set=tuple(sets),
        add_metadata=False, name="weights",
    )  # fmt: skip
    weights = int(unmeasured(part, "symmetric", (8.0,)).sizes.sum())
    batches = seen(part, samples, seed)
    silent = functools.partial(linear_programming.PULP_CBC_CMD, msg=False)
    with patch.object(linear_programming, "PULP_CBC_CMD", silent):
        return toolkit.ptq.pytorch_post_training_quantization(  # type: ignore[no-any-return]
            copy.deepcopy(part[0]),
            lambda: ([x.numpy()] for x, _ in batches),
            target_resource_utilization=toolkit.core.ResourceUtilization(weights_memory=weights * bits / 8),
            core_config=toolkit.core.CoreConfig(mixed_precision_config=toolkit.core.MixedPrecisionQuantizationConfig()),
            target_platform_capabilities=capabilities,
        )


# -- CLADO -----------------------------------------------------------------------------------------------------------


def clado(part: Subject, grid: str, widths: Sequence[float], samples: int, seed: int) -> Problem:
    """Return what each layer and each two of them do to the loss (Deng et al. 2025, equations 7 and 8).

    The matrix is taken as it was measured: ``exact`` needs no positive semidefinite one.
    """
    problem, rounding = unmeasured(part, grid, widths), load_method(grid)
    batches = seen(part, min(samples, _PAIRED), seed)
    x, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    traced = trace(part[0], x[:2])
    sites = {site.name: site for site in traced.weights}
    nodes = [traced.weight_node(sites[name]) for name in problem.names]
    rounded = [
        {bits: _rounded(traced.weight_tensor(sites[name]), rounding, bits) for bits in widths} for name in problem.names
    ]
    plain = traced.tensors

    def changes(group: int, bits: float) -> dict[str, Tensor]:
        return dict.fromkeys(nodes[group], rounded[group][bits])

    def losses(changed: Mapping[str, Tensor], behind: Sequence[tuple[int, float]]) -> tuple[float, dict[Any, float]]:
        """Return the loss with weights changed, and with one more of those behind changed besides."""
        traced.tensors = {**plain, **changed}
        vars(traced).pop("folds", None)  # which were made with other weights
        walk, found = traced.walk(x), {}
        for group, bits in sorted(behind, key=lambda one: walk.first_reader(nodes[one[0]])):
            walk.stop_before(walk.first_reader(nodes[group]))
            found[group, bits] = loss(walk.finish(tensors=changes(group, bits)))
        return loss(walk.finish()), found

    def loss(out: Any) -> float:
        return float(cross_entropy(out[traced.place].double(), labels))

    places = {group: traced.walk(x).first_reader(nodes[group]) for group in range(len(problem))}
    coarse = [bits for bits in widths if bits <= _FINE]
    with torch.no_grad():
        zero, alone = losses({}, list(itertools.product(places, widths)))
        table = np.array([[alone[group, bits] for bits in widths] for group in places])
        pairs, values = [], []
        order = sorted(places, key=lambda group: places[group])
        together: dict[Any, float] = {}
        for number, first in enumerate(order):
            behind = list(itertools.product(order[number + 1 :], coarse))
            for bits in coarse if behind else ():
                found = losses(changes(first, bits), behind)[1]
                together |= {(first, bits, *other): value for other, value in found.items()}
        traced.tensors = plain
    for first, second in itertools.combinations(order, 2):
        cross = np.zeros((len(widths), len(widths)))
        for (a, one), (b, other) in itertools.product(enumerate(coarse), repeat=2):
            cross[a, b] = together[first, one, second, other] - alone[first, one] - alone[second, other] + zero
        pairs.append((first, second))
        values.append(cross)
    # Less the least of each layer, which is a constant: damages are not negative, and losses fall here and there.
    table -= table.min(axis=1, keepdims=True)
    return replace(problem, damage=DamageTable(table), interactions=Pairs(np.array(pairs), np.array(values)))


def _rounded(weight: Tensor, method: Any, bits: float) -> Tensor:
    with torch.no_grad():
        rounded: Tensor = method.quantizer(weight.shape, [int(bits)], [weight.numel()]).rounded(weight)
    return rounded


# What each is, and the module that it takes.
RIVALS: dict[str, tuple[Allocator, tuple[str, ...]]] = {
    "modelopt": (modelopt("gradient"), ("modelopt",)),
    "modelopt-kl": (modelopt("kl_div"), ("modelopt",)),
    "mct": (mct, ("model_compression_toolkit",)),
    "clado": (clado, ()),
}
