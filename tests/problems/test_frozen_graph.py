"""Frozen TensorFlow graphs, written here by hand: read back, and refused in a sentence where they are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impq_opt.errors import FileError
from impq_opt.networks.mobilenet import mobilenet_v1_tf
from impq_opt.problems.recipes.frozen_graph import constants
from impq_opt.problems.recipes.mobilenet_v1 import network_of


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def const(name: str, values: Any) -> bytes:
    shape = b"".join(field(2, field(1, size)) for size in values.shape)
    tensor = field(1, 1) + field(2, shape) + field(4, values.astype("<f4").tobytes())
    dtype = field(5, field(1, b"dtype") + field(2, field(6, 1)))
    return field(1, field(1, name.encode()) + field(2, b"Const") + dtype + _attr("value", tensor))


def _attr(key: str, tensor: bytes) -> bytes:
    return field(5, field(1, key.encode()) + field(2, field(8, tensor)))


def test_constants_are_read_and_everything_else_is_left_aside(tmp_path: Path) -> None:
    values = np.arange(300, dtype=np.float32).reshape(3, 1, 100)
    other = field(1, field(1, b"x") + field(2, b"Placeholder"))
    fixed = varint(9 << 3 | 1) + bytes(8) + varint(10 << 3 | 5) + bytes(4)  # fields of kinds that mean nothing here
    whole = other + const("w", values) + fixed + const("b", values[0, 0]) + field(4, field(1, 27))
    path = tmp_path / "graph.pb"
    path.write_bytes(whole)
    found = constants(path)
    assert list(found) == ["w", "b"]
    np.testing.assert_array_equal(found["w"], values)
    for cut in (len(const("w", values)) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match="is no frozen graph of TensorFlow, or is cut short"):
            constants(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="has no constants"):
        constants(path)
    with pytest.raises(FileError, match="cannot be read: No such file"):
        constants(tmp_path / "none.pb")


def test_a_graph_of_mobilenet_computes_what_its_tensors_say(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = mobilenet_v1_tf().eval()
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    parts = [const("MobilenetV1/Logits/Conv2d_1c_1x1/weights", state["fc.weight"].numpy().T[None, None])]
    parts.append(const("MobilenetV1/Logits/Conv2d_1c_1x1/biases", state["fc.bias"].numpy()))
    theirs = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for place in range(27):
        kind = "depthwise" if place % 2 else "pointwise"
        scope = f"MobilenetV1/Conv2d_{(place + 1) // 2}" + (f"_{kind}" if place else "")
        weight = state[f"features.{place}.conv.weight"].numpy()
        if place % 2:
            parts.append(const(f"{scope}/depthwise_weights", weight.transpose(2, 3, 0, 1)))
        else:
            parts.append(const(f"{scope}/weights", weight.transpose(2, 3, 1, 0)))
        parts += [
            const(f"{scope}/BatchNorm/{name}", state[f"features.{place}.norm.{ours}"].numpy())
            for ours, name in theirs.items()
        ]
    path = tmp_path / "graph.pb"
    path.write_bytes(b"".join(parts))
    read = network_of(path).state_dict()
    assert all(torch.equal(read[name], value) for name, value in state.items())
    path.write_bytes(b"".join(parts[1:]))
    with pytest.raises(FileError, match="a constant is missing, got 'MobilenetV1/Logits/Conv2d_1c_1x1/weights'"):
        network_of(path)


def test_padding_is_that_of_tensorflow() -> None:
    """At stride 2 the first window of SAME starts at the first pixel, and the last one hangs over the end."""
    network = mobilenet_v1_tf()
    conv: Any = network.features[0]
    with torch.no_grad():
        conv.conv.weight.zero_()
        conv.conv.weight[:, 0, 0, 0] = 1.0  # the upper left corner of the window
        seen = conv.conv(conv.pad(torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)))
    assert seen[0, 0].tolist() == [[16.0 * row + 2 * column for column in range(4)] for row in range(4)]
