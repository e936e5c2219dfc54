"""What every method that rounds activations must keep. Needs torch."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from impq_opt.errors import OptionError
from impq_opt.problem.problem import Problem
from impq_opt.quantize import activation_quantizers, pack, quantize, unpack_into
from impq_opt.quantize.methods import ActivationQuantizer, Method, load_method, method_names
from impq_opt.testing.rules import rule

__all__ = ["check_activations"]

_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_SPAN = 2.5


def check_activations(method: Method) -> None:
    """Raise ConformanceError, with the rule and where it is broken, unless a method's rule for activations keeps all.

    :func:`~impq_opt.testing.check_method` says which they are.
    """
    own = type(method).activation is not Method.activation
    rule(bool(method.activations) or not own, method.spec, "it says in a few words how it rounds activations")
    if not method.activations:
        return
    widths = [bits for bits in range(1, 9) if _has(method, bits)]
    rule(bool(widths), method.spec, "it rounds activations at a precision of 1 to 8 bits")
    for signed in (False, True):
        for dtype in _TYPES:
            for bits in widths if dtype == torch.float32 else widths[1:2] or widths:
                for kind, values in _tensors(dtype, signed):
                    where = f"{kind} {'signed ' * signed}activations of {dtype} at {bits} bits"
                    _check(method, values, bits, signed, where)
                    _check_learning(method, values, bits, signed, where)
    if method.name in method_names():
        _check_packing(method, widths[-1])


def _has(method: Method, bits: int) -> bool:
    try:
        method.activation(bits, _SPAN)
    except OptionError:
        return False
    return True


def _tensors(dtype: torch.dtype, signed: bool) -> Iterator[tuple[str, Tensor]]:
    smooth = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    smooth = smooth if signed else smooth.relu()
    yield "smooth", smooth.to(dtype)
    yield "no", torch.zeros(4, 3, 5, dtype=dtype)
    yield "huge", (smooth * 1e4).to(dtype)


def _check(method: Method, values: Tensor, bits: int, signed: bool, where: str) -> None:
    quantizer = method.activation(bits, _SPAN, "relu", signed=signed).eval()
    asked = (quantizer.bits, quantizer.label, quantizer.signed) == (bits, "relu", signed)
    rule(asked and quantizer.span > 0, method.spec, f"the quantizer is as it was asked for, and has a span: {where}")
    taken, before = values.clone().requires_grad_(), copy.deepcopy(quantizer.state_dict())
    rounded = quantizer(taken)
    value = rounded.detach()
    rule(torch.equal(taken, values), method.spec, f"it leaves what it rounds alone: {where}")
    same = (value.shape, value.dtype, value.device) == (values.shape, values.dtype, values.device)
    rule(same, method.spec, f"rounded activations have the shape, type and device of the others: {where}")
    rule(bool(torch.isfinite(value).all()), method.spec, f"rounded activations are finite: {where}")
    stays = torch.equal(quantizer(values), value) and _equal(quantizer.state_dict(), before)
    rule(stays, method.spec, f"in eval mode nothing is learned: {where}")
    codes = quantizer.codes(values)
    whole = not codes.is_floating_point() and codes.shape == values.shape
    rule(whole and 0 <= int(codes.min()) <= int(codes.max()) < 2**bits, method.spec, f"codes have B bits: {where}")
    again = quantizer.values(codes, values.dtype)
    equal = again.dtype == value.dtype and torch.equal(again, value)
    rule(equal, method.spec, f"codes give the rounded activations back, bit for bit: {where}")
    rising = value.flatten()[values.flatten().argsort()].diff()
    rule(bool((rising >= 0).all()), method.spec, f"what is larger is not rounded to less: {where}")
    rule(bool((value[values == 0] == 0).all()), method.spec, f"zeros stay zeros: {where}")
    rounded.sum().backward()
    rule(_finite(quantizer, taken), method.spec, f"gradients are finite: {where}")


def _finite(quantizer: ActivationQuantizer, taken: Tensor) -> bool:
    given = [tensor.grad for tensor in (taken, *quantizer.parameters()) if tensor.grad is not None]
    return all(bool(torch.isfinite(gradient).all()) for gradient in given)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _check_learning(method: Method, values: Tensor, bits: int, signed: bool, where: str) -> None:
    """Make two training steps, and the second once more from the state after the first."""
    quantizer, fresh = (method.activation(bits, _SPAN, "relu", signed=signed).train() for _ in range(2))
    _step(quantizer, values)
    fresh.load_state_dict(quantizer.state_dict())
    same = torch.equal(_step(quantizer, values), _step(fresh, values))
    same = same and _equal(quantizer.state_dict(), fresh.state_dict())
    rule(same, method.spec, f"what is learned is in its state, so that training can go on from a saved one: {where}")
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in quantizer.state_dict().values())
    rule(finite, method.spec, f"what is learned stays finite: {where}")


def _step(quantizer: ActivationQuantizer, values: Tensor) -> Tensor:
    taken = values.clone().requires_grad_()
    rounded: Tensor = quantizer(taken)
    rounded.sum().backward()
    with torch.no_grad():
        for parameter in quantizer.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
                parameter.grad = None
    return rounded.detach()


def _check_packing(method: Method, bits: int) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(5, 6)
    problem = Problem.from_sensitivities(
        [48, 8], [1.0, 1.0], names=["0.weight", "1"], kinds=[0, 1], ranges=[1.0, _SPAN], grids={"1": method.spec}
    )
    quantized = quantize(network, problem, [4, bits], example=x).train()
    optimizer = torch.optim.SGD(quantized.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        quantized(x).square().sum().backward()
        optimizer.step()
    quantized.eval()
    with tempfile.TemporaryDirectory() as folder:
        pack(quantized, Path(folder) / "packed")
        restored = unpack_into(network, Path(folder) / "packed").eval()
    own = activation_quantizers(restored)["1"]
    rule(load_method(own.method).name == method.name, method.spec, "the quantizer says which method it is of")
    with torch.no_grad():
        rule(torch.equal(restored(x), quantized(x)), method.spec, "a packed network with its activations is the same")
