"""Networks by name against what is published of them."""

from __future__ import annotations

import torch

from impq_opt.insight.cost_at import cost_at, uniform_bits
from impq_opt.measure import trace
from impq_opt.measure.structure import structure
from impq_opt.networks import FACTORIES


def test_vgg_small_pools_before_it_normalises() -> None:
    problem = structure(FACTORIES["vgg-small"](), [3, 32, 32])
    read = problem.sizes[~problem.weights()].tolist()
    # 128 channels of 32x32 and 16x16, 256 of 16x16 and 8x8, 512 of 8x8 and 4x4: every second one is pooled already.
    assert read == [128 * 32**2, 128 * 16**2, 256 * 16**2, 256 * 8**2, 512 * 8**2, 512 * 4**2]
    bits = uniform_bits(problem, 1, 8)
    assert cost_at(problem, bits, "storage") == 4_656_512
    assert cost_at(problem, bits, "bit-operations") == 8 * 607_600_640
    assert cost_at(problem, bits, "activation-memory") == 8 * sum(read)


def test_vgg_small_is_traced_to_the_bit_where_no_norm_can_be_folded_through_a_pool() -> None:
    torch.manual_seed(0)
    network = FACTORIES["vgg-small"]().eval()
    for name, value in network.state_dict().items():
        if value.ndim == 1 and "features" in name:  # of batch-norms, scales below zero among them
            value.uniform_(0.5, 2) if name.endswith("var") else value.normal_()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(trace(network, x).run(x), network(x), rtol=0, atol=0)
