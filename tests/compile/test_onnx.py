"""The ONNX and QONNX files: opened by their own packages, run by their engines, held against the reference."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_world import program_of, subject

from impq_opt.compile import Encoding, IntTensor, Layer, Part, Program, Rescale, run
from impq_opt.compile.targets import load_target, ran
from impq_opt.compile.targets import onnx as target
from impq_opt.errors import DataError, MissingPackageError

pytestmark = pytest.mark.filterwarnings("ignore")  # peers warn of their own affairs

onnx_runs = pytest.mark.peer("onnx", "onnxruntime")


@functools.cache
def program(name: str = "every", grid: str = "mid-rise", **options: Any) -> tuple[Program, Any]:
    """Return the program of a subject, and samples."""
    one = subject(name)
    return program_of(one.quantized(grid), one.x, **options), one.x.numpy()


def held(content: bytes) -> Any:
    """Return the graph of a file."""
    import onnx

    return onnx.load_from_string(content).graph


def wide(bits: int = 9, kernels: int = 2) -> Program:
    """Return a layer whose sums float32 does not hold."""
    random = np.random.default_rng(0)
    x, y = IntTensor("input", (4, 6, 6), 8, True, 1.0), IntTensor("logits", (kernels, 4, 4), 24, True, 2.0**-9, 5)
    rescale = Rescale(np.full(kernels, 3), np.array([2**9, 77])[:kernels], 10, y.low, y.high)
    codes = random.integers(0, 2**bits, (kernels, 4, 3, 3)).astype(np.uint16)
    part = Part(bits, codes, 2, np.array([-3, 2**12])[:kernels], np.arange(kernels), np.zeros(kernels, int), rescale)
    encoding = Encoding(np.ones(4), np.zeros(4))
    return Program(
        "wide", {"input": x, "logits": y}, (Layer("w", "input", "logits", (part,)),), "input", "logits", encoding
    )


@onnx_runs
@pytest.mark.parametrize("name", ["onnx", "onnx-unsplit"])
@pytest.mark.parametrize(
    ("network", "grid", "bits"), [("every", "mid-rise", 24), ("every", "asymmetric", 8), ("unrounded", "mid-rise", 24)]
)
def test_onnx_runtime_puts_out_the_reference_bit_for_bit(name: str, network: str, grid: str, bits: int) -> None:
    of, x = program(network, grid=grid, output_bits=bits)
    compiled = load_target(name)(of)
    found = ran(of, compiled, x)
    assert found is not None
    assert found.equal == found.samples == len(x)
    assert compiled.run is not None
    np.testing.assert_array_equal(compiled.run(x[:1]), compiled.run(x)[:1])  # any batch size


@onnx_runs
def test_decisions_on_digits() -> None:
    of, x = program("digits")
    for name, least in (("onnx", 1.0), ("onnx-qdq", 0.99), ("onnx-qdq-unsplit", 0.99)):
        found = ran(of, load_target(name)(of), x)
        assert found is not None
        assert found.samples == len(x)
        assert found.alike / found.samples >= least
        assert (found.equal == found.samples) == (name == "onnx")


@onnx_runs
@pytest.mark.parametrize("opset", [25, 21, 13])
def test_sub_layers_are_held_in_the_narrowest_types_that_the_engine_reads(
    opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    of, x = program()
    monkeypatch.setattr(target, "newest_opset", lambda: opset)
    compiled = load_target("onnx")(of)
    widths = {25: (2, 4, 8), 21: (4, 8), 13: (8,)}[opset]
    expected: dict[int, int] = dict.fromkeys(widths, 0)
    for layer in of.layers:
        for part in layer.parts:
            expected[next(width for width in widths if width >= part.bits)] += part.codes.size
    counted = dict.fromkeys(widths, 0)
    for one in held(compiled.files["network.onnx"]).initializer:
        if "/weight" in one.name:
            kind = onnx.TensorProto.DataType.Name(one.data_type)
            counted[int(kind.lstrip("UINT"))] += int(np.prod(one.dims))
    assert counted == expected
    assert compiled.notes == (f"ONNX opset {opset}",)
    found = ran(of, compiled, x)
    assert found is not None
    assert found.equal == found.samples


@onnx_runs
def test_sums_that_float32_does_not_hold_are_made_of_several() -> None:
    of = wide()
    assert of.sums(of.layers[0], of.layers[0].parts[0]) > 2**24
    x = np.random.default_rng(1).integers(-128, 128, (3, 4, 6, 6))
    whole = run(of, x)
    assert len(np.unique(whole)) > 20
    compiled = load_target("onnx")(of)
    assert compiled.run is not None
    np.testing.assert_array_equal(
        compiled.run(x.astype(np.float32)), (whole - 5).astype(np.float32) * np.float32(2**-9)
    )
    layer = of.layers[0]
    (part,) = layer.parts
    beyond = replace(part, offsets=np.array([2**18, 0]), codes=part.codes[:, :, :1, :1])
    with pytest.raises(DataError, match=r"^w: has products that float32 does not hold, got 'up to "):
        load_target("onnx")(replace(of, operations=(replace(layer, parts=(beyond,)),)))


@onnx_runs
def test_an_engine_finds_integer_kernels(tmp_path: Path) -> None:
    import onnxruntime

    of, _ = program("digits")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "kernels.onnx")
    options.log_severity_level = 4
    content = load_target("onnx-qdq")(of).files["network.onnx"]
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in held((tmp_path / "kernels.onnx").read_bytes()).node]
    pictures = [layer for layer in of.layers if len(of.tensors[layer.source].shape) == 3]
    floats = [layer for layer in pictures if max(of.tensors[name].bits for name in (layer.source, layer.target)) > 8]
    assert kinds.count("Conv") == len(floats) < len(pictures)  # what reads the normalized input computes in float
    assert kinds.count("QLinearConv") == len(pictures) - len(floats)


@pytest.mark.peer("onnx", "qonnx")
def test_qonnx_puts_out_the_reference_bit_for_bit() -> None:
    import onnx
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    of, x = program()
    compiled = load_target("qonnx")(of)
    graph = held(compiled.files["network.onnx"])
    sizes = {one.name: list(one.dims) for one in graph.initializer}
    quants = [node for node in graph.node if node.op_type == "Quant"]
    assert all(sizes[node.input[3]] == [] for node in quants)
    assert sum("/weight" in node.input[0] for node in quants) == sum(len(layer.parts) for layer in of.layers)
    model = ModelWrapper(onnx.load_from_string(compiled.files["network.onnx"]))
    found = execute_onnx(model, {"input": x[:1]})["logits"]
    output = of.tensors[of.output]
    whole = run(of, of.encode(x[:1])) - output.zero
    np.testing.assert_array_equal(found, whole.astype(np.float32) * np.float32(output.scale))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    target.newest_opset.cache_clear()
    for name in ("onnx", "qonnx"):
        with pytest.raises(MissingPackageError, match="writing ONNX files needs the package 'onnx'"):
            load_target(name)(wide())
