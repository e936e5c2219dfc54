"""The folder that a target's own loader reads: what it holds is what the quantized network computes with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure_world import data_of, noise, seeded
from safetensors.torch import load_file
from torch import nn

from impq_opt import solve
from impq_opt.exchange import writer_of
from impq_opt.groups.damage import DamageTable
from impq_opt.measure import structure_of
from impq_opt.pipeline.checkpoint import save_checkpoint
from impq_opt.quantize import quantize, state_of


class Told(nn.Module):
    """Two layers, and a configuration as transformers' networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 3)
        self.config: Any = SimpleNamespace(to_dict=lambda: {"model_type": "told", "hidden_size": 8})

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu())


def test_a_checkpoint_has_the_codes_and_scales_that_the_network_computes_with(tmp_path: Path) -> None:
    network, writer = seeded(Told), writer_of("compressed-tensors:group_size=4")
    grid, bits = writer.measured()
    problem = structure_of(network, data_of(noise(4, 12)), grid=grid, bits=bits).revise(weights_only=True)
    damage = np.array([[4.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    problem = writer.prepare(replace(problem, damage=DamageTable(damage)))
    allocation = solve(problem, bound=1.0, minimize="storage")
    assert allocation.bits.tolist() == [8 + 32 / 4, 4 + 32 / 4]
    quantized = quantize(network, problem, allocation).eval()
    assert save_checkpoint(tmp_path / "c", network, quantized, writer, allocation) == ""
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["hidden_size"] == 8 and config["architectures"] == ["Told"]
    assert config["quantization_config"] == writer.config(allocation)
    held, wanted = load_file(tmp_path / "c" / "model.safetensors"), state_of(quantized, latent=False)
    for name, width in (("first", 8), ("second", 4)):
        words = held[f"{name}.weight_packed"].numpy()
        rows, columns = held[f"{name}.weight_shape"].tolist()
        bits_of = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : columns * width]
        codes = (bits_of.reshape(rows, columns, width) << np.arange(width)).sum(2) - 2 ** (width - 1)
        scales = held[f"{name}.weight_scale"].repeat_interleave(4, dim=1)
        torch.testing.assert_close(torch.from_numpy(codes) * scales, wanted[f"{name}.weight"], rtol=0, atol=0)
        assert torch.equal(held[f"{name}.bias"], wanted[f"{name}.bias"]) and f"{name}.weight" not in held


def test_nothing_is_written_where_there_is_nothing_to_write(tmp_path: Path) -> None:
    network = seeded(Told)
    del network.config
    for target in ("compressed-tensors", "torchao"):
        assert save_checkpoint(tmp_path / "c", network, network, writer_of(target), None) == ""  # type: ignore[arg-type]
        network.config = SimpleNamespace(to_dict=dict)
    assert not (tmp_path / "c").exists()
