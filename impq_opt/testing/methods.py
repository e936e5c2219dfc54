"""What every method of quantizing must keep. Needs torch."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from impq_opt.errors import OptionError
from impq_opt.quantize import before_step, pack, unpack_into
from impq_opt.quantize.methods import Method, Quantizer, load_method, method_names
from impq_opt.quantize.methods.base import Moment
from impq_opt.testing.activations import check_activations
from impq_opt.testing.rules import rule

__all__ = ["check_method"]

_SHAPE = (8, 6, 5)
# In the middle of training, the second of three weights.
_LATER = Moment(0.5, 1, 3)
_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_method(method: Method | str) -> None:
    """Raise ConformanceError, with the rule and where it is broken, unless ``method`` keeps every rule.

    The rules, for smooth, sparse, constant, tiny and huge weights of every type, at every precision that the method
    has and at several in one tensor: the rounded weight has the shape, type and device of the latent one, which stays
    as it is; codes are whole numbers of B bits; codes and side information give the rounded weight back, bit for bit;
    there are at most as many levels as the method says, and no more than 2^B; zeros stay zeros and gradients pass
    unchanged where the method says so; no error is larger than a step where it says how long steps are; a network in
    half precision has the same codes; it has the precisions that it says, and other gradients are finite; what stands
    for the weight in training is finite, of its shape and type; what it learns or does before a step is in its state,
    and noise is drawn from torch's generator, so that training goes on from saved tensors; a network that was trained
    for two steps and packed computes what the quantized one does, bit for bit.

    Of a rule for activations, where the method says that it has one, at every precision, of both signs and of one:
    shape, type and device stay; codes of B bits give the rounded activations back, bit for bit; what is larger is not
    rounded to less, zeros stay zeros, gradients are finite; in eval mode nothing is learned; what is learned is in its
    state, stays finite, and is packed.
    """
    chosen = load_method(method) if isinstance(method, str) else method
    registered = chosen.name in method_names()
    rule(bool(chosen.name) and chosen.spec.isprintable(), chosen.spec, "it has a name that can be printed")
    rule(not registered or load_method(chosen.spec) == chosen, chosen.spec, "its spec names it, options and all")
    widths = [bits for bits in range(1, 9) if _has(chosen, bits)]
    rule(bool(widths), chosen.spec, "it has a precision of 1 to 8 bits")
    rule(widths == [b for b in range(1, 9) if b in chosen.widths], chosen.spec, "it has the precisions that it says")
    rule(
        set(chosen.leaves_float) <= {"first", "last"}, chosen.spec, "it leaves first and last layers in float, no more"
    )
    for dtype in _TYPES:
        for kind, weight in _weights(dtype):
            where = f"{kind} weights of {dtype}"
            for bits in widths if (dtype, kind) == (torch.float32, "smooth") else widths[:1]:
                _check(chosen, weight, [bits], [weight.numel()], f"{where} at {bits} bits")
            mixed = np.array([widths[row % len(widths)] for row in range(_SHAPE[0])])
            _check(chosen, weight, mixed, [weight[0].numel()] * _SHAPE[0], f"{where} at bits {mixed.tolist()}")
            if kind == "smooth":
                _check_learning(chosen, weight, mixed, where)
        if registered:
            _check_packing(chosen, widths, dtype)
    check_activations(chosen)


def _has(method: Method, bits: int) -> bool:
    try:
        method.quantizer(_SHAPE, [bits], [int(np.prod(_SHAPE))])
    except OptionError:
        return False
    return True


def _weights(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(_SHAPE, generator=generator)
    sparse = smooth * (torch.rand(_SHAPE, generator=generator) < 0.2)
    sparse[1] = 0
    yield "smooth", smooth.to(dtype)
    yield "sparse", sparse.to(dtype)
    yield "constant", torch.full(_SHAPE, -0.75).to(dtype)
    small, large = (1e-7, 1e4) if dtype == torch.float16 else (1e-15, 1e15)
    yield "tiny", (smooth * small).to(dtype)
    yield "huge", (smooth * large).to(dtype)


def _check(method: Method, weight: Tensor, bits: npt.ArrayLike, sizes: list[int], where: str) -> None:
    quantizer = method.quantizer(weight.shape, bits, sizes)
    latent = weight.clone().requires_grad_()
    rounded = quantizer(latent)
    rule(torch.equal(latent, weight), method.spec, f"it leaves the latent weight alone: {where}")
    same = (rounded.shape, rounded.dtype, rounded.device) == (weight.shape, weight.dtype, weight.device)
    rule(same, method.spec, f"the rounded weight has the latent one's shape, type and device: {where}")
    value = rounded.detach()
    rule(bool(torch.isfinite(value).all()), method.spec, f"the rounded weight is finite: {where}")
    rule(torch.equal(quantizer(weight), value), method.spec, f"the same weight is rounded alike: {where}")
    _check_codes(method, quantizer, weight, value, where)
    if method.has_zero:
        rule(bool((value[weight == 0] == 0).all()), method.spec, f"zeros stay zeros: {where}")
    if method.straight_through:
        upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(weight.dtype)
        quantizer.train()(latent).backward(upstream)
        quantizer.eval()
        rule(torch.equal(_gradient(latent), upstream), method.spec, f"gradients pass unchanged: {where}")
    _check_steps(method, quantizer, weight, value, where)


def _gradient(latent: Tensor) -> Tensor:
    return torch.zeros_like(latent) if latent.grad is None else latent.grad


def _check_codes(method: Method, quantizer: Quantizer, weight: Tensor, value: Tensor, where: str) -> None:
    codes, side = quantizer.codes(weight), quantizer.side(weight)
    whole = not codes.is_floating_point() and codes.shape == weight.shape
    rule(whole, method.spec, f"codes are whole numbers, one a weight: {where}")
    widths = np.repeat(quantizer.group_bits, quantizer.group_sizes).reshape(weight.shape)
    inside = (codes >= 0) & (codes.double() < torch.from_numpy(np.exp2(widths)))
    rule(bool(inside.all()), method.spec, f"codes have B bits: {where}")
    again = quantizer.values(codes, side, weight.dtype)
    equal = again.dtype == value.dtype and torch.equal(again, value)
    rule(equal, method.spec, f"codes and side information give the rounded weight back, bit for bit: {where}")
    rule(
        quantizer.side_bits(weight) >= sum(t.numel() for t in side.values()),
        method.spec,
        f"side information is counted: {where}",
    )
    ranges = max(1, side["scale"].numel() // len(value)) if "scale" in side else 1  # of a kernel
    for row, width in zip(value.flatten(1), widths.reshape(len(value), -1)[:, 0].tolist(), strict=True):
        levels = method.levels(width)
        rule(levels <= 2**width, method.spec, f"it has at most 2^{width} levels: {where}")
        rule(len(row.unique()) <= levels * ranges, method.spec, f"a range has at most {levels} values: {where}")
    half = copy.deepcopy(quantizer).to(torch.float16)
    rule(torch.equal(half.codes(weight), codes), method.spec, f"codes are the same in half precision: {where}")


def _check_steps(method: Method, quantizer: Quantizer, weight: Tensor, value: Tensor, where: str) -> None:
    spans = method.spans(weight)
    if spans is None:
        return
    rule(spans.shape == weight.shape[:1], method.spec, f"it says the span of every output kernel: {where}")
    widths = np.repeat(quantizer.group_bits, quantizer.group_sizes).reshape(weight.shape)
    steps = spans.reshape(-1, *(1,) * (weight.ndim - 1)) * torch.from_numpy(np.exp2(-widths.astype(np.float64)))
    # The rounded weight is itself rounded, to the type of the latent one.
    slack = 1e-5 * steps + value.double().abs() * torch.finfo(weight.dtype).eps + torch.finfo(weight.dtype).tiny
    error = (value.double() - weight.double()).abs()
    rule(bool((error <= steps + slack).all()), method.spec, f"no error is larger than a step: {where}")


def _check_learning(method: Method, weight: Tensor, bits: npt.NDArray[np.int64], where: str) -> None:
    """Do what the method wants done before a step, twice, once more from its state."""
    quantizer, fresh = (method.quantizer(weight.shape, bits, [weight[0].numel()] * len(bits)).train() for _ in range(2))
    moved = weight.clone()
    with torch.no_grad():
        quantizer.before_step(moved, Moment())
    kept = (moved.shape, moved.dtype) == (weight.shape, weight.dtype) and bool(torch.isfinite(moved).all())
    rule(kept, method.spec, f"before a step the latent weight stays finite: {where}")
    fresh.load_state_dict(quantizer.state_dict())
    again = moved.clone()
    with torch.no_grad():
        for one, latent in ((quantizer, moved), (fresh, again)):
            one.before_step(latent, _LATER)
        same = torch.equal(moved, again) and torch.equal(_seeded(quantizer, moved), _seeded(fresh, again))
    told = "what is learned is in its state, noise of torch's generator: training can go on from saved ones"
    rule(same, method.spec, f"{told}: {where}")
    latent = moved.requires_grad_()
    relaxed = quantizer(latent)
    same = (relaxed.shape, relaxed.dtype) == (weight.shape, weight.dtype) and bool(torch.isfinite(relaxed).all())
    rule(same, method.spec, f"in training the weight is finite, of the latent one's shape and type: {where}")
    relaxed.sum().backward()
    finite = all(bool(torch.isfinite(_gradient(one)).all()) for one in (latent, *quantizer.parameters()))
    rule(finite, method.spec, f"gradients are finite: {where}")


def _seeded(quantizer: Quantizer, weight: Tensor) -> Tensor:
    """Return what stands for the weight in training, with the noise of one seed."""
    torch.manual_seed(3)
    value: Tensor = quantizer(weight)
    return value


def _train(network: nn.Module, dtype: torch.dtype) -> None:
    """Make a few steps, so that what can be learned is not what it began as."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2)).to(dtype)
    for step in range(2):
        before_step(network, step / 2)
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


def _check_packing(method: Method, widths: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype).eval()
    quantized = copy.deepcopy(network)
    for layer in quantized:
        if isinstance(layer, nn.Linear):
            bits = [widths[row % len(widths)] for row in range(layer.out_features)]
            quantizer = method.quantizer(layer.weight.shape, bits, [layer.in_features] * len(bits))
            parametrize.register_parametrization(layer, "weight", quantizer)
    _train(quantized.train(), dtype)
    quantized.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.safetensors"
        pack(quantized, path)
        restored = unpack_into(network, path)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        rule(torch.equal(restored(x), quantized(x)), method.spec, f"a packed network of {dtype} computes the same")
