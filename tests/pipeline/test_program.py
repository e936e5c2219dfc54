"""The program of torch.export: what the packed network computes, whatever it takes and rounds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from measure_world import digits_network
from torch import Tensor, nn

from impq_opt.data import Dataset, load_data
from impq_opt.measure import Sampling, measure
from impq_opt.pipeline.program import program_bytes
from impq_opt.quantize import packed, quantize, unpack_into


class Two(nn.Module):
    """Two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x) + shift))
        return out


@pytest.mark.parametrize("activations", [8, 32])
@pytest.mark.parametrize("kind", ["one", "two"])
def test_a_program_is_the_packed_network(kind: str, activations: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: Any = digits_network() if kind == "one" else Two()
    data = load_data("digits") if kind == "one" else Dataset({"x": torch.randn(20, 4), "shift": torch.randn(20, 6)})
    problem = measure(network, data, sampling=Sampling(samples=16), bits=(3, 8))
    bits = [3 if weight else activations for weight in problem.weights()]
    path = tmp_path / "p.safetensors"
    path.write_bytes(packed(quantize(network, problem, bits))[0])
    inputs: Any = data.inputs
    example = inputs[:2] if kind == "one" else {name: value[:2] for name, value in inputs.items()}
    program, why = program_bytes(network, path, example)
    assert program is not None, why
    run = torch.export.load(io.BytesIO(program)).module()
    plain = unpack_into(network, path, example=example).eval()
    given = ((inputs[:5],), {}) if kind == "one" else ((), {name: value[:5] for name, value in inputs.items()})
    with torch.no_grad():
        torch.testing.assert_close(run(*given[0], **given[1]), plain(*given[0], **given[1]))
