"""Encodings held against the packages that have them: the same matrix comes out of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from impq_opt.encodings import encoding
from impq_opt.encodings.gguf import GGUF_TYPES

pytestmark = pytest.mark.filterwarnings("ignore")  # peers warn of their own affairs


def matrix(length: int = 512, rows: int = 24) -> Any:
    rng = np.random.default_rng(1)
    scales = 10.0 ** rng.uniform(-3, 0, (rows, 1))
    return (rng.standard_t(4, (rows, length)) * scales).astype(np.float32)


@pytest.mark.peer("libgguf", "gguf")
@pytest.mark.parametrize("kind", [kind for kind in GGUF_TYPES if not kind.guided], ids=lambda kind: kind.name)
def test_gguf_types_are_read_alike_by_gguf_and_take_as_many_bytes(kind: Any) -> None:
    import gguf

    weights = matrix()
    theirs = gguf.GGMLQuantizationType[kind.name.upper()]
    assert (kind.number, (kind.block, kind.block_bits // 8)) == (theirs.value, gguf.GGML_QUANT_SIZES[theirs])
    data = kind.encode(weights)
    assert 8 * data.size == kind.size(*weights.shape)
    assert np.array_equal(gguf.dequantize(data, theirs).reshape(weights.shape), kind.round(weights))
    try:
        own = gguf.quantize(weights, theirs)
    except NotImplementedError:
        return  # gguf has no k-quants of its own
    assert np.array_equal(own.view(np.uint8).reshape(data.shape), data)


@pytest.mark.peer("torch", "torchao")
@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_torchao_int4(group: int) -> None:
    import torch
    from torchao.quantization import quant_primitives as theirs

    weights = torch.from_numpy(matrix())
    block = (1, group)
    scale, zero = theirs._choose_qparams_affine_tinygemm(
        weights, theirs.MappingType.ASYMMETRIC, block, torch.int32, 0, 15,
        scale_dtype=torch.bfloat16, zero_point_dtype=torch.bfloat16,
    )  # fmt: skip
    scale, zero = scale.float(), zero.float()  # as they are stored; the arithmetic is that of float32
    codes = theirs._quantize_affine_tinygemm(weights, block, scale, zero, torch.int32, 0, 15)
    found = theirs._dequantize_affine_tinygemm(codes, block, scale, zero, torch.int32, 0, 15)
    assert np.array_equal(encoding(f"torchao-int4-g{group}").round(weights), found.numpy())


@pytest.mark.peer("torch", "torchao")
def test_torchao_int8() -> None:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = torch.nn.Linear(512, 24, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(matrix()))
    found = encoding("torchao-int8").round(layer.weight.detach())
    quantize_(layer, Int8WeightOnlyConfig())
    assert np.array_equal(found, layer.weight.dequantize().detach().numpy())


@pytest.mark.peer("torch", "torchao")
@pytest.mark.parametrize(
    ("name", "element"),
    [("mxfp4", "float4_e2m1fn_x2"), ("mxfp8-e4m3", "float8_e4m3fn"), ("mxfp8-e5m2", "float8_e5m2"),
     ("mxfp6-e2m3", "fp6_e2m3"), ("mxfp6-e3m2", "fp6_e3m2")],
)  # fmt: skip
def test_mx_formats_are_torchaos(name: str, element: str) -> None:
    import torch
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    weights = matrix()
    theirs = MXTensor.to_mx(torch.from_numpy(weights), getattr(torch, element, element), 32)
    assert np.array_equal(encoding(name).round(weights), theirs.dequantize(torch.float32).numpy())


@pytest.mark.peer("torch", "torchao")
def test_nvfp4_is_torchaos() -> None:
    import torch
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    weights = torch.from_numpy(matrix())
    whole = per_tensor_amax_to_scale(weights.abs().max())
    theirs = NVFP4Tensor.to_nvfp4(weights, per_tensor_scale=whole).dequantize(torch.float32).numpy()
    own = encoding("nvfp4").round(weights)
    # it multiplies by a reciprocal where this divides: what lies on a half may fall to the other side
    assert (np.abs(own - theirs) > 1e-6 * np.abs(theirs)).mean() < 1e-3
    assert np.square(own - theirs).sum() < 1e-3 * np.square(own - weights.numpy()).sum()


@pytest.mark.peer("torch", "modelopt")
def test_nvfp4_is_modelopts() -> None:
    import torch
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    weights = torch.from_numpy(matrix())
    quantized, scale, double = NVFP4QTensor.quantize(weights, 16)
    theirs = quantized.dequantize(torch.float32, scale=scale, double_scale=double, block_sizes={-1: 16}).numpy()
    own = encoding("nvfp4").round(weights)
    assert (np.abs(own - theirs) > 1e-6 * np.abs(theirs)).mean() < 1e-3
