"""Rounding learned block by block: where graphs are cut, what is kept, and that nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calibrate_world import same, state, world
from torch import Tensor, fx, nn

from impq_opt.calibrate.blocks import blocks_of
from impq_opt.calibrate.graphs import graph_of
from impq_opt.calibrate.layers import layers_of
from impq_opt.calibrate.parts import brecq
from impq_opt.errors import OptionError
from impq_opt.quantize import quantized_weights
from impq_opt.testing.calibrations import _quantized, _Residual
from impq_opt.tracing.trace import trace


def test_all_behind_a_block_depends_on_its_last_call_alone() -> None:
    """Told by running what is behind on nothing but the input and that."""
    network, x = _Residual().eval(), torch.randn(3, 2, 6, 6)
    traced = trace(network, x[:2])
    graph = graph_of(_quantized(network, "symmetric"), traced).eval()
    blocks, behind = blocks_of(graph, traced, layers_of(graph, traced)[0])
    assert [[layer.name for layer in block.layers] for block in blocks] == [["stem"], ["body", "bare"], ["out"]]
    assert not behind
    with torch.no_grad():
        logits = graph(x)
        run = fx.Interpreter(graph, graph=graph.traced_graph, garbage_collect_values=False)
        run.run(x)
        for block in blocks[:-1]:
            rest = fx.Interpreter(graph, graph=graph.traced_graph)
            seen = {node: value for node, value in run.env.items() if node.op == "get_attr"}
            rest.env = seen | {block.nodes[-1]: run.env[block.nodes[-1]]}
            order = list(graph.traced_graph.nodes)
            for node in order[order.index(block.nodes[-1]) + 1 :]:
                rest.env[node] = rest.run_node(node)
            assert torch.equal(rest.env[blocks[-1].nodes[-1]], logits)


def test_layers_behind_the_last_cut_are_left_alone() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = torch.relu(self.stem(x))
            return {"logits": self.left(x), "others": self.right(x)}

    network, x = TwoHeads().eval(), torch.randn(2, 4)
    traced = trace(network, x)
    graph = graph_of(_quantized(network, "symmetric"), traced).eval()
    blocks, behind = blocks_of(graph, traced, layers_of(graph, traced)[0])
    assert [[layer.name for layer in block.layers] for block in blocks] == [["stem"]]
    assert [layer.name for layer in behind] == ["left", "right"]


def test_learned_codes_are_next_to_the_float_weight_and_bring_a_block_closer() -> None:
    found = world("net")
    quantized = found.quantized(2, scheme="symmetric")
    done = found.calibrate(quantized, ["brecq:steps=150"], samples=66)
    (step,) = done.steps
    assert step.outcome == "kept" and {"conv1", "conv2"} & set(step.changed)
    before, after = quantized_weights(quantized), quantized_weights(done.network)
    for name, weight in after.items():
        quantizer: Any = before[name].quantizer
        span = quantizer.grid(quantizer.side(before[name].latent))[0].reshape(quantizer.view[0], -1)
        moved = (weight.value - before[name].latent).flatten(1).abs()
        assert bool((moved <= span * (1 + 1e-5)).all()), name
        assert torch.equal(weight.value, before[name].value) == (name.removesuffix(".weight") not in step.changed)
    held = found.calibrated_on(66)[:17]  # the first part of the first batch, held back
    behind = {"conv1": "conv2", "conv2": "fc"}[step.changed[0]]  # reads what the block gives, the same ones in front
    reads = []
    for network in (found.network, quantized, done.network):
        layer = network.get_submodule(behind)
        handle = layer.register_forward_pre_hook(lambda _, given: reads.append(given[0]))
        with torch.no_grad():
            network.eval()(held)
        handle.remove()
    assert (reads[2] - reads[0]).square().mean() < (reads[1] - reads[0]).square().mean()


def test_what_brings_no_block_closer_on_samples_held_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(self: Any, task: Any, places: Any, seen: Any, unit: float) -> None:
        """Round every weight the other way."""
        for place in places:
            place.soft.raised.data.neg_()

    monkeypatch.setattr(brecq.BRECQ, "_descend", turned)
    found = world("net")
    quantized = found.quantized(3, scheme="symmetric")
    done = found.calibrate(quantized, ["brecq"], samples=66)
    assert [(step.outcome, step.changed) for step in done.steps] == [("nothing", ())]
    assert done.steps[0].reason == "no block comes closer on samples that are held back"
    assert same(state(done.network), state(quantized))
    with pytest.raises(OptionError, match=r"brecq.steps: must be at least 1, got 0"):
        found.calibrate(quantized, ["brecq:steps=0"])
