"""Grids of equal steps that are held: what the latent weight becomes does not change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantize_world import EXAMPLE, declared, net

from impq_opt.quantize import learned_of, pack, quantize, quantized_weights, state_of, unpack, unpack_into
from impq_opt.quantize.methods import load_method

GRIDS = (
    "mid-rise",
    "mid-rise:one_bit=mean",
    "zero",
    "symmetric:over=2",
    "asymmetric:statistic=mse",
    "symmetric:over=tensor",
)
WEIGHT = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BITS, SIZES = [1, 2, 3, 8], [6, 6, 6, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", GRIDS)
def test_what_is_held_stays_and_is_in_the_state(spec: str, dtype: torch.dtype) -> None:
    weight = WEIGHT.to(dtype)
    quantizer, fresh, free = (load_method(spec).quantizer(weight.shape, BITS, SIZES) for _ in range(3))
    rounded, side = quantizer(weight), quantizer.side(weight)
    quantizer.hold(side)  # type: ignore[operator]
    assert torch.equal(quantizer(weight), rounded)
    moved = weight * 3
    assert not torch.equal(quantizer(moved), free(moved))
    assert all(torch.equal(kept, side[name]) for name, kept in quantizer.side(moved).items())
    values = quantizer.values(quantizer.codes(moved), quantizer.side(moved), dtype)
    assert torch.equal(values, quantizer(moved))
    fresh.load_state_dict(quantizer.state_dict())
    assert torch.equal(fresh(moved), values)
    free.load_state_dict(free.state_dict())
    assert not free.state_dict() and torch.equal(free(weight), rounded)


def test_a_network_that_holds_grids_is_packed_and_its_float_state_knows_nothing_of_them(tmp_path: Path) -> None:
    network = net()
    problem, _ = declared(network, EXAMPLE)
    quantized = quantize(network, problem, np.full(len(problem), 3)).eval()
    before = pack(quantized, tmp_path / "packed")
    with torch.no_grad():
        for weight in quantized_weights(quantized).values():
            weight.quantizer.hold(weight.quantizer.side(weight.latent))  # type: ignore[operator]
            weight.latent.mul_(0.5).add_(0.01)
    assert pack(quantized, tmp_path / "packed") == before
    assert state_of(quantized, latent=True).keys() == network.state_dict().keys()
    assert len(learned_of(quantized)) == 3
    unpacked = unpack_into(network, tmp_path / "packed").eval()
    with torch.no_grad():
        assert torch.equal(unpacked(EXAMPLE), quantized(EXAMPLE))
    again = quantize(network, problem, np.full(len(problem), 3)).eval()
    again.load_state_dict(quantized.state_dict())
    values: dict[str, Any] = {name: one.value for name, one in quantized_weights(again).items()}
    assert all(torch.equal(tensor, unpack(tmp_path / "packed").state[name]) for name, tensor in values.items())
